//! Observe, plan, execute, record: the conductor.
