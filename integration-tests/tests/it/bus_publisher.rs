//! Publishing: every acknowledgement awaited, the same bytes under the same id.

use std::sync::{Arc, Mutex};

use bus::{PublisherLimits, Read, ReaderSettings, Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::NatsServer;
use wire::Sealed;

fn message(number: u32) -> Sealed {
    Sealed::new("lake.access.0.test".to_owned(), "application/json", format!("{number}"), 1)
}

#[tokio::test]
async fn what_is_acknowledged_is_read_back_in_order() {
    let server = NatsServer::start().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let topology = Topology::embedded("", &TopologyOverrides::default(), &Rules::default());
    bus.apply_topology(&topology).await.unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&acknowledged);
    let publisher = bus.publisher(PublisherLimits::default(), move |ack| {
        list.lock().unwrap().push((ack.sequence, ack.sealed.payload.clone()));
    });
    for number in 0..1_000 {
        publisher.publish(message(number)).await.unwrap();
    }
    let confirmed = publisher.flush().await.unwrap();
    assert_eq!((confirmed.stored, confirmed.duplicates, confirmed.events), (1_000, 0, 1_000));
    let mut expected = acknowledged.lock().unwrap().clone();
    expected.sort();
    let mut reader = bus.reader(ReaderSettings::new("LAKE_0", "test", 0));
    let mut found = Vec::new();
    while found.len() < 1_000 {
        match reader.next().await.unwrap() {
            Read::Message(delivery) => found.push((delivery.sequence, delivery.payload)),
            Read::Subscribed(_) => {}
            other @ (Read::Deleted { .. } | Read::Changed(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!(found, expected);
}
