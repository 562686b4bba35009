//! What the kernel counts per slot.
