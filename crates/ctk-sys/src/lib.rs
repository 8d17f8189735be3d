//! The only unsafe code: clone3, child steps, raw system calls.
