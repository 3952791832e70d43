//! Seeds from the operating system.
#![allow(unsafe_code)]

/// 256 fresh bits. The process stops if the system has none: nothing that needs them may go on without.
pub fn seed(_salt: &str) -> [u8; 32] {
    let mut seed = [0u8; 32];
    // SAFETY: the kernel writes at most `seed.len()` bytes into `seed`. Up to 256 bytes come whole or not at all.
    let r = unsafe { libc::getentropy(seed.as_mut_ptr().cast(), seed.len()) };
    assert_eq!(r, 0, "the system gives no randomness: {}", std::io::Error::last_os_error());
    seed
}
