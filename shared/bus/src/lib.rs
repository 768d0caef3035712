//! JetStream: streams, the publisher, the one reader, snapshots and epochs. The only user of async-nats.
