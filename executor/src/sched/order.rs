//! The order in which a thief visits its victims.

/// Visits all of `0..count` once, starting anywhere, in steps that are coprime to `count`: a
/// cheap random permutation (Go's `randomOrder`).
#[derive(Debug)]
pub(crate) struct StealOrder {
    count: u32,
    coprimes: Box<[u32]>,
}

impl StealOrder {
    pub(crate) fn new(count: u32) -> Self {
        let coprimes = (1..=count).filter(|step| gcd(*step, count) == 1).collect();
        Self { count, coprimes }
    }

    pub(crate) fn visit(&self, random: u32) -> impl Iterator<Item = u32> {
        let count = self.count;
        let step = self.coprimes[(random / count) as usize % self.coprimes.len()];
        let start = random % count;
        // In 64 bits: `index * step` may pass 2^32.
        (0..u64::from(count)).map(move |index| {
            ((u64::from(start) + index * u64::from(step)) % u64::from(count)) as u32
        })
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_victim_once() {
        for count in 1..40 {
            let order = StealOrder::new(count);
            for random in (0..2000).chain(u32::MAX - 100..=u32::MAX) {
                let mut seen: Vec<u32> = order.visit(random).collect();
                seen.sort_unstable();
                assert_eq!(
                    seen,
                    (0..count).collect::<Vec<_>>(),
                    "count {count}, random {random}"
                );
            }
        }
    }
}
