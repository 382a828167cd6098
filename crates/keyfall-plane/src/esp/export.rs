//! One SA in the words of other people's tools.

use core::fmt::Write;
use core::net::IpAddr;

use keyfall_protocol::keys::{EspKeys, EspSuite};
use zeroize::Zeroizing;

/// One direction of ESP in UDP, from one address to another, unicast or multicast.
#[derive(Debug)]
pub struct EspExport<'k> {
    pub keys: &'k EspKeys,
    pub spi: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Of UDP, at both ends.
    pub port: u16,
}

impl EspExport<'_> {
    /// The arguments of `ip` that give the SA to Linux, as sender or receiver. SECURITY: the key is
    /// in it.
    #[must_use]
    pub fn ip_xfrm(&self) -> Zeroizing<String> {
        let algorithm = match self.keys.suite() {
            EspSuite::Aes256Gcm | EspSuite::Aes128Gcm => "rfc4106(gcm(aes))",
            EspSuite::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
        };
        let (spi, port) = (self.spi, self.port);
        let (source, destination) = (self.source, self.destination);
        let mut line = with_room();
        let start = format_args!(
            "xfrm state add src {source} dst {destination} proto esp spi {spi:#010x} mode tunnel \
             replay-window {LINUX_WINDOW} encap espinudp {port} {port} {} aead '{algorithm}' 0x",
            unspecified(destination)
        );
        append(&mut line, start);
        append_hex(&mut line, self.keys.key_and_salt());
        append(&mut line, format_args!(" 128"));
        line
    }

    /// A line of Wireshark's table `esp_sa`, for `tshark -o uat:esp_sa:LINE` or the file `esp_sa` of
    /// a profile. `None` for ChaCha20-Poly1305, which its versions 4.0 and before do not know.
    /// SECURITY: the key is in it.
    #[must_use]
    pub fn wireshark(&self) -> Option<Zeroizing<String>> {
        let algorithm = match self.keys.suite() {
            EspSuite::Aes256Gcm | EspSuite::Aes128Gcm => "AES-GCM with 16 octet ICV [RFC4106]",
            EspSuite::ChaCha20Poly1305 => return None,
        };
        let version = if self.destination.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        let (source, destination, spi) = (self.source, self.destination, self.spi);
        let mut line = with_room();
        let start = format_args!(
            r#""{version}","{source}","{destination}","{spi:#010x}","{algorithm}","0x"#
        );
        append(&mut line, start);
        append_hex(&mut line, self.keys.key_and_salt());
        append(&mut line, format_args!(r#"","NULL","""#));
        Some(line)
    }
}

/// Large enough from the start, so that no copy of the key is left in freed memory (INVARIANT 10).
fn with_room() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(512))
}

fn append(line: &mut String, text: core::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a String takes any text");
}

fn append_hex(line: &mut String, octets: &[u8]) {
    for octet in octets {
        append(line, format_args!("{octet:02x}"));
    }
}

const fn unspecified(like: IpAddr) -> &'static str {
    if like.is_ipv4() { "0.0.0.0" } else { "::" }
}

/// The widest that Linux has.
const LINUX_WINDOW: u32 = 4096;

#[cfg(test)]
mod tests {
    use keyfall_protocol::keys::{EspKeys, EspSuite};

    use super::EspExport;

    #[test]
    fn an_sa_is_said_in_the_words_of_ip_and_of_wireshark() {
        let keys = EspKeys::from_octets(EspSuite::Aes128Gcm, &[0xab; 20]).expect("20 octets");
        let export = EspExport {
            keys: &keys,
            spi: 0x1001,
            source: [10, 0, 0, 1].into(),
            destination: [239, 1, 1, 1].into(),
            port: 4500,
        };
        let key = "ab".repeat(20);
        assert_eq!(
            *export.ip_xfrm(),
            format!(
                "xfrm state add src 10.0.0.1 dst 239.1.1.1 proto esp spi 0x00001001 mode tunnel \
                 replay-window 4096 encap espinudp 4500 4500 0.0.0.0 aead 'rfc4106(gcm(aes))' \
                 0x{key} 128"
            )
        );
        assert_eq!(
            *export.wireshark().expect("AES-GCM"),
            format!(
                r#""IPv4","10.0.0.1","239.1.1.1","0x00001001","AES-GCM with 16 octet ICV [RFC4106]","0x{key}","NULL","""#
            )
        );
    }

    #[test]
    fn the_longest_line_fits_the_room_that_it_was_given() {
        let keys = EspKeys::from_octets(EspSuite::ChaCha20Poly1305, &[1; 36]).expect("36 octets");
        let longest = core::net::IpAddr::from([0xfdff; 8]);
        let export = EspExport {
            keys: &keys,
            spi: u32::MAX,
            source: longest,
            destination: longest,
            port: u16::MAX,
        };
        let line = export.ip_xfrm();
        assert_eq!(line.capacity(), 512, "{} octets", line.len());
        assert!(export.wireshark().is_none());
        let keys = EspKeys::from_octets(EspSuite::Aes256Gcm, &[1; 36]).expect("36 octets");
        let export = EspExport {
            keys: &keys,
            ..export
        };
        let line = export.wireshark().expect("AES-GCM");
        assert_eq!(line.capacity(), 512, "{} octets", line.len());
    }
}
