//! Streams are made as declared, and what the server has is compared with what was asked.

use bus::{Topology, TopologyOverrides};
use domain::Rules;
use integration_tests::nats::NatsServer;

fn topology() -> Topology {
    Topology::embedded("", &TopologyOverrides::default(), &Rules::default())
}

#[tokio::test]
async fn applying_the_topology_twice_makes_it_once_and_changes_nothing() {
    let server = NatsServer::start().await.unwrap();
    let bus = server.bus("test").await.unwrap();
    let first = bus.apply_topology(&topology()).await.unwrap();
    assert!(first.iter().all(|stream| stream.made && stream.changed.is_empty()), "{first:?}");
    let second = bus.apply_topology(&topology()).await.unwrap();
    assert_eq!(second.len(), 5);
    assert!(second.iter().all(|stream| !stream.made && stream.changed.is_empty()), "{second:?}");
    let lake = bus.stream("LAKE_0").await.unwrap();
    assert_eq!(Rules::from_metadata(&lake.metadata), Ok(Rules::default()));
    assert_eq!((lake.first_sequence, lake.last_sequence), (0, 0));
}
