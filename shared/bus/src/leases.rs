//! Leases: who may do what only one process may do, in an entry that is replaced by
//! compare-and-set.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    bucket::{self, compare_and_set},
    connection::Bus,
    error::BusError,
};

/// All leases.
#[derive(Clone, Debug)]
pub struct Leases {
    bus: Bus,
}

/// A claim of one process. It differs from every other claim, also from earlier claims of this
/// process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Machine, process and address, for people.
    pub holder: String,
    /// Distinguishes this process from every other, also after a restart.
    pub token: String,
    /// Number of renewals.
    pub beat: u64,
    /// Whether the lease was given back, so that nobody has to wait.
    pub is_released: bool,
}

/// What [`Leases::get`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseEntry {
    /// `None` if nobody ever claimed the lease, or the entry can't be read, which counts as no
    /// claim.
    pub claim: Option<Claim>,
    /// For [`Leases::set`]; changes with each renewal.
    pub revision: u64,
}

impl Bus {
    /// The leases.
    pub fn leases(&self) -> Leases {
        Leases { bus: self.clone() }
    }
}

impl Leases {
    /// Who holds a lease. The name may contain letters, digits, `_` and `-`.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] if the broker is not the one that this connection began with,
    /// [`BusError::NoStream`] if the bucket is missing, and any error of a request.
    pub async fn get(&self, thing: &str) -> Result<LeaseEntry, BusError> {
        self.bus.same_pipeline().await?;
        let entry = bucket::entry(&self.bus, &key(thing)).await?;
        let claim = entry.value.and_then(|value| serde_json::from_slice(&value).ok());
        Ok(LeaseEntry { claim, revision: entry.revision })
    }

    /// Claims, renews or gives back a lease, if nobody changed the entry since `revision`. Returns
    /// the new revision.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if somebody did: read the entry again. Also the errors of
    /// [`Leases::get`].
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
