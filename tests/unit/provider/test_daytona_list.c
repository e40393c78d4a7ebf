/* daytona: limits, the sweep's list, the key, and what belongs to no phase. */
#include "tests/unit/provider/box.h"

/* ---- limits ---- */

static struct rate rate_of(int status, const char *const *pairs, size_t n)
{
    struct reply_header headers[8];
    struct answer a = {0};
    for (size_t i = 0; i < n; i++)
        headers[i] = (struct reply_header){pairs[2 * i], pairs[2 * i + 1]};
    struct reply r = {
        .status = status, .headers = headers, .n_headers = n, .body = "{}", .body_len = 2};
    w->provider->ops->answer_key(w->provider, &r, &a);
    struct rate rate = a.rate;
    answer_done(&a);
    return rate;
}

static void limits_are_read_by_scope_in_any_case(void **state)
{
    static const char *const said[] = {
        "X-RateLimit-Limit-Authenticated", "2000", "x-ratelimit-remaining-authenticated", "1999",
        "x-ratelimit-reset-authenticated", "51",   "x-ratelimit-limit-sandbox-create",    "40"};
    static const char *const foreign[] = {"x-ratelimit-limit-sandbox-create", "40"};
    static const char *const strange[] = {"x-ratelimit-limit-authenticated", "-4"};
    (void)state;
    w = world_new(START_JOB);
    struct rate rate = rate_of(200, said, 4);
    assert_int_equal(rate.limit, 2000);
    assert_int_equal(rate.remaining, 1999);
    assert_int_equal(rate.reset_s, 51);
    assert_int_equal(rate_of(200, foreign, 1).limit, -1);
    assert_int_equal(rate_of(200, strange, 1).limit, -1);
    assert_true(rate_of(401, NULL, 0).unauthorized);
    assert_false(rate_of(200, NULL, 0).unauthorized);
}

static void retry_after_comes_in_three_forms(void **state)
{
    static const char *const ours[] = {"Retry-After-Authenticated", "17"};
    static const char *const bare[] = {"retry-after", "60"};
    static const char *const other[] = {"retry-after-sandbox-create", "33"};
    static const char *const date[] = {"retry-after", "Tue, 24 Nov 2026 08:00:00 GMT"};
    static const char *const zero[] = {"retry-after", "0"};
    (void)state;
    w = world_new(START_JOB);
    assert_int_equal(rate_of(429, ours, 1).retry_after_ms, 17000);
    assert_int_equal(rate_of(429, bare, 1).retry_after_ms, 60000);
    assert_int_equal(rate_of(429, other, 1).retry_after_ms, 33000);
    assert_int_equal(rate_of(429, date, 1).retry_after_ms, 10000);
    assert_int_equal(rate_of(429, NULL, 0).retry_after_ms, 10000);
    assert_int_equal(rate_of(429, zero, 1).retry_after_ms, 1000);
    assert_int_equal(rate_of(200, ours, 1).retry_after_ms, 0);
}

/* ---- the sweep's list, the key ---- */

static void list_asks_for_two_labels_and_checks_them(void **state)
{
    static const char body[] = "{\"items\":[" DTO_OF(
        "a", "oh.s1", "started", "started", "1", "0", OUR_LABELS,
        "") "," DTO_OF("b", "oh.s2", "error", "started", "1", "0", OUR_LABELS,
                       "") "," DTO_OF("c", "x", "started", "started", "1", "0",
                                      "\"session-worker/fleet\":\"oh\",\"session-worker/"
                                      "partition\":\"session-jobs/4\"",
                                      "") "," DTO_OF("d", "x", "started", "started", "1", "0", "",
                                                     "") "," DTO_OF("e", "DESTROYED_x_1", "started",
                                                                    "destroyed", "1", "0",
                                                                    OUR_LABELS,
                                                                    "") "," DTO_OF("../f", "x",
                                                                                   "started",
                                                                                   "started", "1",
                                                                                   "0", OUR_LABELS,
                                                                                   "") ",7,null],"
                                                                                       "\"nextCurso"
                                                                                       "r\":\"abc/"
                                                                                       "=\"}";
    struct listing first = {.partition = "session-jobs/3"};
    struct listing second = {.partition = "session-jobs/3", .cursor = "abc/="};
    struct reply r = {.status = 200, .body = body, .body_len = strlen(body)};
    struct listed listed = {0};
    struct answer a = {0};
    (void)state;
    w = world_new(START_JOB);
    w->provider->ops->ask_list(w->provider, &first, &w->call);
    char *what = asked_for(w);
    assert_non_null(strstr(what, "labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%2C%22session-"
                                 "worker%2Fpartition%22%3A%22session-jobs%2F3%22%7D&"));
    assert_non_null(strstr(what, "&states=error&"));
    assert_non_null(strstr(what, "&states=creating&"));
    assert_null(strstr(what, "stopped"));
    assert_null(strstr(what, "archived"));
    assert_non_null(strstr(what, "&limit=200"));
    assert_null(strstr(what, "cursor"));
    free(what);
    w->provider->ops->answer_list(w->provider, &first, &r, &listed, &a);
    assert_int_equal(a.verdict, OK);
    assert_int_equal(listed.n, 2);
    assert_string_equal(listed.boxes[0]->id, "a");
    assert_true(listed.boxes[0]->ours && listed.boxes[0]->provisional);
    assert_string_equal(listed.boxes[1]->name, "oh.s2");
    assert_int_equal(listed.boxes[1]->state, BOX_ERROR);
    assert_string_equal(listed.next, "abc/=");
    listed_done(w->provider, &listed);
    call_done(&w->call);
    w->provider->ops->ask_list(w->provider, &second, &w->call);
    assert_non_null(strstr(w->call.url, "&cursor=abc%2F%3D"));
}

static enum verdict list_verdict(int status, const char *body, size_t *n)
{
    struct listing q = {.partition = "session-jobs/3"};
    struct reply r = {.fault = status ? FAULT_NONE : FAULT_TIMEOUT,
                      .status = status,
                      .body = body,
                      .body_len = strlen(body)};
    struct listed listed = {0};
    struct answer a = {0};
    w->provider->ops->answer_list(w->provider, &q, &r, &listed, &a);
    enum verdict v = a.verdict;
    *n = listed.n;
    answer_done(&a);
    listed_done(w->provider, &listed);
    return v;
}

static void list_takes_a_bare_array_and_no_nonsense(void **state)
{
    size_t n;
    (void)state;
    w = world_new(START_JOB);
    assert_int_equal(list_verdict(200, "[" DTO("started", "started", "0") "]", &n), OK);
    assert_int_equal(n, 1);
    assert_int_equal(list_verdict(200, "{\"items\":[],\"nextCursor\":null}", &n), OK);
    assert_int_equal(list_verdict(200, "{\"items\":5}", &n), RETRY);
    assert_int_equal(list_verdict(200, "", &n), RETRY);
    assert_int_equal(list_verdict(500, "", &n), RETRY);
    assert_int_equal(list_verdict(0, "", &n), RETRY);
    assert_int_equal(list_verdict(400, ERROR(400, "Invalid cursor provided: zzz"), &n), REFUSE);
    assert_int_equal(list_verdict(429, ERROR(429, "ThrottlerException"), &n), AGAIN);
}

static void a_list_may_be_larger_than_an_ordinary_reply(void **state)
{
    struct buf body;
    size_t n;
    (void)state;
    w = world_new(START_JOB);
    buf_init(&body, 4 << 20);
    buf_addc(&body, '[');
    for (int i = 0; i < 3000; i++)
        buf_addf(&body, "%s" DTO("started", "started", "0"), i ? "," : "");
    buf_addc(&body, ']');
    assert_true(body.len > json_limits_reply.max_bytes);
    assert_int_equal(list_verdict(200, buf_text(&body), &n), OK);
    assert_int_equal(n, 3000);
    buf_done(&body);
}

static void the_key_is_tried_with_a_look_that_is_not_public(void **state)
{
    struct reply bad = {.status = 401, .body = "{}", .body_len = 2};
    struct reply good = {.status = 200, .body = "{\"items\":[]}", .body_len = 12};
    struct answer a = {0};
    (void)state;
    w = world_new(START_JOB);
    w->provider->ops->ask_key(w->provider, &w->call);
    char *what = asked_for(w);
    assert_string_equal(what, "GET /sandbox?labels=%7B%22session-worker%2Ffleet%22%3A%22oh%22%7D"
                              "&limit=1");
    free(what);
    w->provider->ops->answer_key(w->provider, &bad, &a);
    assert_true(a.rate.unauthorized && a.verdict == AGAIN);
    answer_done(&a);
    w->provider->ops->answer_key(w->provider, &good, &a);
    assert_true(!a.rate.unauthorized && a.verdict == OK);
    answer_done(&a);
}

/* ---- the rest ---- */

static void the_providers_words_are_cut_and_html_is_none(void **state)
{
    char body[40000] = "";
    (void)state;
    w = world_new(START_JOB);
    for (size_t i = 0; i + 2 < sizeof body - 1; i += 2)
        memcpy(body + i, "\xc3\xbc", 3);
    struct line text = {.ask = NAME,
                        .status = 400,
                        .type = "text/plain",
                        .body = body,
                        .verdict = REFUSE,
                        .code = ERR_PROVIDER_PROTOCOL};
    struct line html = {.ask = NAME,
                        .status = 400,
                        .type = "text/html; charset=utf-8",
                        .body = "<html>",
                        .verdict = REFUSE,
                        .code = ERR_PROVIDER_PROTOCOL};
    enter(w, FIND);
    talk_line(w, &text);
    assert_int_equal(strlen(w->answer.provider_message), 36864);
    body[0] = 'x'; /* so that a character would be cut in two */
    body[1] = 'y';
    memmove(body + 1, body + 2, sizeof body - 2);
    talk_line(w, &text);
    assert_int_equal(strlen(w->answer.provider_message), 36863);
    talk_line(w, &html);
    assert_null(w->answer.provider_message);
}

static void names_are_encoded_and_ids_checked(void **state)
{
    (void)state;
    w = world_new(START_JOB);
    free(w->box->name);
    w->box->name = xstrdup("oh.a/b ?#%");
    talk(w, ENTER(FIND),
         {.ask = "GET /sandbox/oh.a%2Fb%20%3F%23%25",
          .status = 404,
          .body = NOT_FOUND,
          .set = LOOKED});
    w->box->hint_id = xstrdup("..");
    talk(w, ENTER(FIND));
    assert_int_equal(ask(w, 0), ASKED_REFUSED);
    enter(w, STOP);
    assert_int_equal(ask(w, 0), ASKED_REFUSED); /* no id at all */
}

static void the_second_slot_has_nothing_to_ask(void **state)
{
    static const enum phase phases[] = {FIND, CREATE, START, KEEP, STOP, DELETE};
    (void)state;
    found(START_JOB, DTO("started", "started", "0"));
    for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
        enter(w, phases[i]);
        assert_int_equal(ask(w, 1), ASKED_NOTHING);
    }
}

static void forgetting_leaves_name_and_hint(void **state)
{
    (void)state;
    found(START_JOB, DTO("started", "started", "-1"));
    w->box->hint_id = xstrdup("h");
    w->provider->ops->box_forget(w->box);
    assert_string_equal(w->box->name, "oh.s1");
    assert_string_equal(w->box->hint_id, "h");
    assert_null(w->box->id);
    assert_null(w->box->label_job);
    assert_false(w->box->mine || w->box->ours || w->box->provisional);
    w->facts = 0;
    talk(w, ENTER(CREATE),
         {.ask = "POST /sandbox",
          .status = 200,
          .body = DTO("creating", "started", "0"),
          .set = EXISTS});
    w->provider->ops->box_free(NULL);
}

static void providers_are_known_by_type(void **state)
{
    static const char *const sets[] = {"fleet=oh"};
    (void)state;
    assert_true(provider_known("daytona"));
    assert_false(provider_known("modal"));
    w = xcalloc(1, sizeof *w);
    world_init(w, START_JOB, sets, 1);
    assert_int_equal(w->provider->n_keys, 1); /* derived from the key */
    assert_int_equal(strlen(w->provider->keys[0]), 43);
    free(w->config.providers[0].type);
    w->config.providers[0].type = xstrdup("modal");
    assert_null(provider_new(&w->config, 0));
    provider_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(limits_are_read_by_scope_in_any_case, teardown),
        cmocka_unit_test_teardown(retry_after_comes_in_three_forms, teardown),
        cmocka_unit_test_teardown(list_asks_for_two_labels_and_checks_them, teardown),
        cmocka_unit_test_teardown(list_takes_a_bare_array_and_no_nonsense, teardown),
        cmocka_unit_test_teardown(a_list_may_be_larger_than_an_ordinary_reply, teardown),
        cmocka_unit_test_teardown(the_key_is_tried_with_a_look_that_is_not_public, teardown),
        cmocka_unit_test_teardown(the_providers_words_are_cut_and_html_is_none, teardown),
        cmocka_unit_test_teardown(names_are_encoded_and_ids_checked, teardown),
        cmocka_unit_test_teardown(the_second_slot_has_nothing_to_ask, teardown),
        cmocka_unit_test_teardown(forgetting_leaves_name_and_hint, teardown),
        cmocka_unit_test_teardown(providers_are_known_by_type, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
