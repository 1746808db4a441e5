//! The two checksums of the on-disk formats: CRC-32C (manifest partition) and CRC-32 (GPT).

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (polynomial * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);
static ISO_HDLC: [u32; 256] = table(0xedb8_8320);

fn run(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        table[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

/// CRC-32C (Castagnoli), as in iSCSI and ext4, over `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    run(&CASTAGNOLI, bytes)
}

/// CRC-32 (ISO-HDLC), as in zlib and the GPT, over `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    run(&ISO_HDLC, bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_values_of_the_crc_catalogue() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
