//! Integers, strings and binary data (section 1.5).
