//! What to do about an error of PostgreSQL, by its SQLSTATE. Pure.

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlRecovery {
    /// Try again with backoff: the error ends by itself.
    Retry,
    /// Try again with backoff, and alert people if the error does not end.
    RetryAlarm,
    /// Nothing can be written until a person acts; wait and alert people.
    Pause,
    /// A key is known already: use the path that expects this.
    Duplicate,
    /// There is no partition for the row: create it, then try again.
    MakePartition,
    /// One row causes the error: find it and store it as a dead letter.
    IsolateRow,
    /// A person must change something: end with a clear message.
    Stop,
}

/// What to do about an error with this SQLSTATE. `constraint` is the name of the violated
/// constraint, if the server reports one. A missing partition has the SQLSTATE of a violated check
/// constraint, but no name.
pub fn recovery(sqlstate: &str, constraint: Option<&str>) -> SqlRecovery {
    match sqlstate {
        "55P03" | "57P01" | "57P02" | "57P03" | "57P05" => return SqlRecovery::Retry,
        // A statement or a transaction took too long: it may be slow now, or always.
        "57014" | "25P03" | "25P04" => return SqlRecovery::RetryAlarm,
        // Read-only: a full disk at Supabase, or a standby server.
        "25006" => return SqlRecovery::Pause,
        "23505" => return SqlRecovery::Duplicate,
        "23514" if constraint.is_none() => return SqlRecovery::MakePartition,
        // Retention has just dropped the partition.
        "42P01" => return SqlRecovery::MakePartition,
        _ => {}
    }
    match sqlstate.get(..2) {
        // Connection; rollback (serialization, deadlock); resources (memory, disk, connections).
        Some("08" | "40" | "53") => SqlRecovery::Retry,
        // System (I/O); internal.
        Some("58" | "XX") => SqlRecovery::RetryAlarm,
        // Cardinality, data, integrity, program limits: caused by the row.
        Some("21" | "22" | "23" | "54") => SqlRecovery::IsolateRow,
        // Authorization, database name, syntax or access rule, unsupported features, and everything
        // else.
        _ => SqlRecovery::Stop,
    }
}

/// Whether the server refuses our login: the password, the role, or the client's address.
pub(crate) fn is_of_login(sqlstate: &str) -> bool {
    sqlstate.get(..2) == Some("28")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_the_design_has_its_answer() {
        use SqlRecovery::{Duplicate, IsolateRow, MakePartition, Pause, Retry, RetryAlarm, Stop};
        let table = [
            ("08000", Retry),
            ("08006", Retry),
            ("08P01", Retry),
            ("40001", Retry),
            ("40P01", Retry),
            ("53100", Retry),
            ("53200", Retry),
            ("53300", Retry),
            ("55P03", Retry),
            ("57P01", Retry),
            ("57P02", Retry),
            ("57P03", Retry),
            ("57P05", Retry),
            ("57014", RetryAlarm),
            ("25P03", RetryAlarm),
            ("25P04", RetryAlarm),
            ("58000", RetryAlarm),
            ("58030", RetryAlarm),
            ("XX000", RetryAlarm),
            ("XX001", RetryAlarm),
            ("25006", Pause),
            ("23505", Duplicate),
            ("23514", MakePartition),
            ("42P01", MakePartition),
            ("21000", IsolateRow),
            ("22001", IsolateRow),
            ("22003", IsolateRow),
            ("22021", IsolateRow),
            ("22P05", IsolateRow),
            ("23502", IsolateRow),
            ("23503", IsolateRow),
            ("54000", IsolateRow),
            ("28000", Stop),
            ("28P01", Stop),
            ("3D000", Stop),
            ("42501", Stop),
            ("42703", Stop),
            ("0A000", Stop),
            ("57P04", Stop),
            ("55000", Stop),
            ("25P02", Stop),
            ("P0001", Stop),
            ("", Stop),
            ("é", Stop),
        ];
        for (state, expected) in table {
            assert_eq!(recovery(state, None), expected, "{state}");
        }
    }

    #[test]
    fn a_check_that_has_a_name_is_a_matter_of_the_row_and_not_of_a_partition() {
        assert_eq!(recovery("23514", Some("lake_access_bytes_check")), SqlRecovery::IsolateRow);
    }
}
