//! A block of addresses, as in `10.0.0.0/8`. What a block is good for is said by whoever asks.

use std::fmt;
use std::net::IpAddr;

/// A block of IPv4 or IPv6 addresses. An IPv4 address that comes mapped into IPv6 counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or one address without a length. `None` if it is
    /// something else, also when bits behind the prefix are set: then one of the two was mistyped.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().ok()?;
        let (bits, bits_max) = bits_of(address);
        let prefix_bits = match prefix {
            None => bits_max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        let behind_bits = bits_max.checked_sub(prefix_bits)?;
        (cut(bits, behind_bits) == bits).then_some(Self { address, prefix_bits })
    }

    /// Whether `address` is in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, bits_max) = bits_of(self.address);
        let (bits, other_max) = bits_of(address.to_canonical());
        bits_max == other_max && cut(bits, bits_max.saturating_sub(self.prefix_bits)) == own
    }

    /// Its first address, and how many bits stand behind the prefix.
    pub fn first(&self) -> (IpAddr, u8) {
        let (_, bits_max) = bits_of(self.address);
        (self.address, bits_max.saturating_sub(self.prefix_bits))
    }

    /// Whether it is every address of its family.
    pub fn is_everything(&self) -> bool {
        self.prefix_bits == 0
    }
}

/// The bits of an address, and how many its family has.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// `bits` with the last `count` of them cleared.
fn cut(bits: u128, count: u8) -> u128 {
    let mask = u128::MAX.checked_shl(count.into()).unwrap_or(0);
    bits & mask
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        let rows = [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1/128", "::1", "::2"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ];
        for (block, inside, outside) in rows {
            assert!(network(block).contains(address(inside)), "{inside} in {block}");
            assert!(!network(block).contains(address(outside)), "{outside} in {block}");
        }
        assert!(network("0.0.0.0/0").is_everything() && network("::/0").is_everything());
        assert!(!network("0.0.0.0/1").is_everything());
    }

    #[test]
    fn what_was_mistyped_is_no_block() {
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "lb/8"]
        {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
