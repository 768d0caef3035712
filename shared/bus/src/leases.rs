//! Leases: who may do what only one may do, in an entry that changes hands by compare-and-set.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    bucket::{self, compare_and_set},
    connection::Bus,
    error::BusError,
};

/// The leases of everything that only one may have.
#[derive(Clone, Debug)]
pub struct Leases {
    bus: Bus,
}

/// Somebody's claim. It differs from every other, also from the same one's before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// For people: machine, process and address.
    pub holder: String,
    /// Tells this process from every other, also after a restart.
    pub token: String,
    /// Counts the renewals.
    pub beat: u64,
    /// Given back: nobody has to wait.
    pub is_released: bool,
}

/// What [`Leases::get`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseEntry {
    /// `None`: nobody ever claimed it, or the entry can't be read, which is nobody's claim.
    pub claim: Option<Claim>,
    /// To be given to [`Leases::set`]; changes with each renewal.
    pub revision: u64,
}

impl Bus {
    /// The leases.
    pub fn leases(&self) -> Leases {
        Leases { bus: self.clone() }
    }
}

impl Leases {
    /// Who has a thing: letters, digits, `_` and `-`.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] in a broker that is not the one that this connection began with,
    /// [`BusError::NoStream`] where the bucket is missing, and what any request may meet.
    pub async fn get(&self, thing: &str) -> Result<LeaseEntry, BusError> {
        self.bus.same_pipeline().await?;
        let entry = bucket::entry(&self.bus, &key(thing)).await?;
        let claim = entry.value.and_then(|value| serde_json::from_slice(&value).ok());
        Ok(LeaseEntry { claim, revision: entry.revision })
    }

    /// Claims, renews or gives back, provided that nobody changed the entry since `revision`;
    /// returns the new revision.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if somebody did: ask again who. And as [`Leases::get`].
    pub async fn set(&self, thing: &str, claim: &Claim, revision: u64) -> Result<u64, BusError> {
        let what = format!("owner of {thing}");
        let value: Bytes = serde_json::to_vec(claim)
            .map_err(|error| BusError::Garbled { what: what.clone(), detail: error.to_string() })?
            .into();
        compare_and_set(&self.bus, &key(thing), &value, revision, &what).await
    }
}

fn key(thing: &str) -> String {
    format!("owner.{thing}")
}
