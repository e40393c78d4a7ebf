# Stands in for apache/kafka:4.1.1 where no registry can be reached: the same jars, paths, user and
# variables. KafkaDockerWrapper, of Kafka itself, turns KAFKA_* into properties, as it does there.
# Built by tests/compose/run.py --stand-ins.
ARG DEBIAN=debian:trixie-slim
FROM ${DEBIAN}
RUN apt-get update && apt-get install -y --no-install-recommends default-jre-headless && \
    rm -rf /var/lib/apt/lists/* && useradd -u 1000 -m appuser && \
    mkdir -p /opt/kafka/bin /opt/kafka/config /etc/kafka/docker /etc/kafka/secrets /mnt/shared/config \
        /var/lib/kafka/data && \
    chown -R appuser /opt/kafka /etc/kafka /mnt/shared/config /var/lib/kafka
COPY libs /opt/kafka/libs
RUN printf '%s\n' '#!/bin/bash' 'exec java ${KAFKA_HEAP_OPTS:--Xmx512m} -cp "/opt/kafka/libs/*" \
org.apache.kafka.tools.TopicCommand "$@"' >/opt/kafka/bin/kafka-topics.sh && \
    printf '%s\n' '#!/bin/bash' 'set -e' 'run() { java -Xmx512m -cp "/opt/kafka/libs/*" "$@"; }' \
'run kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
--mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config' \
'exec java -Xms256m -Xmx512m -cp "/opt/kafka/libs/*" kafka.Kafka /opt/kafka/config/server.properties' \
>/etc/kafka/docker/run && \
    touch /etc/kafka/docker/server.properties /etc/kafka/docker/log4j2.yaml \
        /etc/kafka/docker/tools-log4j2.yaml && \
    chmod +x /opt/kafka/bin/kafka-topics.sh /etc/kafka/docker/run
ENV CLUSTER_ID=4L6g3nShT-eMCtK--X86sw
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
