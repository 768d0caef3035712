//! What a check found.

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It is as it should be.
    Good(String),
    /// It may be intended.
    Note(String),
    /// It is wrong; `todo` is how to correct it.
    Bad { what: String, todo: String },
}

/// Something that is wrong, and how to correct it.
pub(super) fn bad(what: impl Into<String>, todo: impl Into<String>) -> Check {
    Check::Bad { what: what.into(), todo: todo.into() }
}
