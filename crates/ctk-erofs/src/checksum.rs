//! CRC32C as the superblock has it.

/// The Castagnoli polynomial, reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of `bytes`, from all ones and not inverted at the end. A bit at a time: it is asked for 3 KiB an image.
pub fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_of_rfc_3720_but_for_the_inversion() {
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
