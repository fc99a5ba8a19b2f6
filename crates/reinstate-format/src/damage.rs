//! For tests: every way in which one place of some bytes can be damaged.

/// Asserts that `is_noticed` says yes for every flipped bit, every truncation and an appended
/// byte, and no for the bytes as they are.
#[track_caller]
pub(crate) fn check(bytes: &[u8], is_noticed: impl Fn(&[u8]) -> bool) {
    assert!(!is_noticed(bytes), "intact bytes are refused");
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert!(
                is_noticed(&damaged),
                "bit {bit} of byte {at} of {}",
                bytes.len()
            );
            damaged[at] ^= 1 << bit;
        }
        assert!(is_noticed(&bytes[..at]), "cut at {at} of {}", bytes.len());
    }
    damaged.push(0);
    assert!(is_noticed(&damaged), "a byte more");
}
