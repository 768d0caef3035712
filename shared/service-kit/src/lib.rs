//! What surrounds a service and is not its job. Knows no domain.
