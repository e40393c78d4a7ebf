/* What the recordings do not show but the replay needs: waits, what befell the runner, requests of
 * their makers, and the differences that are known, each with its reason. */
#include <stddef.h>

#include "tests/sim/replay.h"

const char beside_scenario[] =
    "{\"sandboxes\":{\"lease-error\":{\"boot\":\"error\",\"boot_ms\":5},"
    "\"lease-stuck\":{\"boot\":\"stuck\"},"
    "\"b-error\":{\"boot\":\"error\",\"boot_ms\":5},\"b-creating\":{\"boot\":\"stuck\"},"
    "\"d-error\":{\"boot\":\"error\",\"boot_ms\":5},"
    "\"d-error-del\":{\"boot\":\"error\",\"boot_ms\":5},"
    "\"d-creating\":{\"boot_ms\":2000},\"g-slow\":{\"boot_ms\":1500},\"g-lost\":{\"boot_ms\":1000},"
    "\"g-refused\":{\"boot\":\"error\",\"boot_ms\":5,\"reason\":\"stub: create refused\"},"
    "\"h-sw2\":{\"stop_ms\":300},"
    "\"g-par\":{\"boot_ms\":150},\"a4\":{\"boot_ms\":300,\"stop_ms\":2900}}}";

#define EXEC_TWO "process/session/two/exec"
const struct beside beside[] = {
    {97, "POST", EXEC_TWO, "{\"command\":\"sleep 2; echo x > /home/daytona/disc2\"}", 1},
    {97, "POST", EXEC_TWO, "{\"command\":\"sleep 5; echo x > /home/daytona/disc3\"}", 1},
    {188, "POST", "/_sim/world", "{\"sandboxes\":{\"a4\":{\"boot_ms\":2900}}}", 1},
    {225, "POST", "/_sim/world", "{\"warm\":6}", 1},
    {281, "POST", "/_sim/world", "{\"warm\":0}", 1},
    {260, "POST", "/_sim/world", "{\"sandboxes\":{\"b-error\":{\"boot\":\"well\"}}}", 1},
    {488, "DELETE", "/api/sandbox/d-fresh", "", 1},
    {540, "POST", "/toolbox/81aca1de-0892-4248-9abc-021b46538806/process/session",
     "{\"sessionId\":\"web\"}", 1},
    {540, "POST", "/toolbox/81aca1de-0892-4248-9abc-021b46538806/process/session/web/exec",
     "{\"command\":\"python3 /home/daytona/app.py\",\"runAsync\":true}", 1},
    {563, "POST", "/_sim/world", "{\"gpu\":\"gpu-1\"}", 1},
    {568, "POST", "/_sim/world", "{\"region_rule\":\"ephemeral\"}", 1},
    {573, "POST", "/_sim/world", "{\"region_rule\":\"\"}", 1},
    {574, "POST", "/_sim/world", "{\"cpu_quota\":1}", 1},
    {576, "POST", "/_sim/world", "{\"cpu_quota\":0,\"disk_quota\":1}", 1},
    {577, "POST", "/_sim/world", "{\"disk_quota\":0}", 1},
    {588, "POST", "process/execute", "{\"command\":\"pkill -9 -f job-1\"}", 1},
    {610, "POST", "/_sim/world", "{\"runner_down\":true}", 1},
    {617, "POST", "/_sim/world", "{\"runner_down\":false}", 1},
    {618, "POST", "/_sim/world", "{\"runner_down\":false}", 1},
    {647, "GET", "/api/sandbox/168abb4a-ca68-474b-9201-06afb685b461", "", 14},
    {680, "POST", "/api/sandbox",
     "{\"name\":\"g-lost\",\"autoDeleteInterval\":0,\"labels\":{\"job\":\"lost\"}}", 1},
    {690, "POST", "/_sim/world", "{\"sandboxes\":{\"g-slow\":{\"boot_ms\":2500}}}", 1},
    {707, "POST", "/_sim/world",
     "{\"sandboxes\":{\"g-slow\":{\"boot\":\"error\",\"boot_ms\":100,\"reason\":\"stub: x\"}}}", 1},
    {738, "POST", "/_sim/world", "{\"suspended\":true}", 1},
    {745, "POST", "/_sim/world", "{\"suspended\":false}", 1},
    {757, "POST", "/_sim/world", "{\"crash\":\"crash-eph\"}", 1},
    {757, "POST", "/_sim/world", "{\"crash\":\"crash-kept\"}", 1},
    {762, "POST", "/_sim/world", "{\"runner_down\":true}", 1},
    {764, "POST", "/_sim/world", "{\"runner_down\":false}", 1},
    {764, "POST", "process/session", "{\"sessionId\":\"before-restart\"}", 1},
    {766, "POST", "/_sim/world", "{\"restart_daemon\":\"the-daemon\"}", 1},
    {770, "POST", "/_sim/world", "{\"warm\":3}", 1},
    {774, "POST", "/_sim/world", "{\"warm\":0}", 1},
    {0, NULL, NULL, NULL, 0},
};

/* Waits before an exchange, ms, that its answer does not tell; negative: it was sent earlier. */
int64_t beside_wait_ms(int n)
{
    static const struct {
        int n, ms;
    } waits[] = {
        {47, 2200},  {54, 100},   {61, 100},    {63, 100},    {65, 100},
        {68, 100},   {98, 4500},  {99, 100},    {103, 500},   {121, 5100},
        {132, 9000}, {220, 1000}, {235, 1200},  {266, 10400}, {506, 500},
        {528, 3000}, {541, 1200}, {556, 68000}, {104, 71300}, {577, 42000},
        {588, 200},  {595, 5000}, {165, -30},   {572, 200},   {679, -60},
    };
    for (size_t i = 0; i < ARRAY_LEN(waits); i++)
        if (waits[i].n == n)
            return waits[i].ms;
    return 0;
}

/* Why an exchange is answered otherwise; NULL: it should not be. */
const char *known_difference(int n)
{
    static const struct {
        int n;
        const char *why;
    } known[] = {
        {77, "the daemon mixed the two streams in another order"},
        {133, "the file was written beside the recording"},
        {330, "lists sandboxes that were made beside the recording"},
        {513, "shows what the recorder's own client sent"},
        {547, "the token came from a request beside the recording"},
        {550, "the token came from a request beside the recording"},
        {554, "labels were set beside the recording"},
        {555, "labels were set beside the recording"},
        {573, "limits on the disk of kept sandboxes are not modelled"},
        {587, "the recorded daemon had been restarted in between"},
        {672, "lists the sandbox that stands for the daemon"},
        {608, "shows a command that ran beside the recording"},
        {611, "the recorded daemon had another runner, which was not down"},
        {612, "the recorded daemon had another runner, which was not down"},
        {638, "lists sandboxes that the groups under a limit do not share here"},
        {745, "the recorded stub never finished an archive"},
        {480, "lists sandboxes that were made beside the recording"},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].n == n)
            return known[i].why;
    return NULL;
}
