//! One thread, by hand.

use super::rig::{HOUR, Rig};
use super::*;
use std::collections::BTreeMap;

fn ready(poll: Poll<Result<(), Error>>) -> bool {
    matches!(poll, Poll::Ready(Ok(())))
}

#[test]
fn fires_by_deadline_and_equal_ones_in_order() {
    let rig = Rig::new(1);
    let hours = [3, 1, 2, 1, 2, 9, 1];
    let _timers: Vec<_> = (0..).zip(hours).map(|(id, at)| rig.armed(at, id)).collect();
    assert!(rig.expire(0, 0).is_empty());
    assert_eq!(rig.timers().next_deadline(), Some(rig.at(1)));
    assert_eq!(rig.expire(0, 2), [1, 3, 6, 2, 4]);
    assert_eq!(rig.expire(0, 8), [0]);
    assert_eq!(rig.timers().next_deadline(), Some(rig.at(9)));
}

#[test]
fn never_a_nanosecond_early() {
    let rig = Rig::new(1);
    let _timer = rig.armed(1, 7);
    let mut out = WakeList::new();
    let early = rig.at(1) - Duration::from_nanos(1);
    assert_eq!(rig.timers().expire(0, early, &mut out), 0);
    assert_eq!(rig.timers().expire(0, rig.at(1), &mut out), 1);
}

#[test]
fn a_fired_timer_does_not_fire_again() {
    let rig = Rig::new(1);
    let mut timer = rig.armed(1, 7);
    assert_eq!(rig.expire(0, 1), [7]);
    assert!(rig.expire(0, 100).is_empty());
    assert!(timer.is_elapsed());
    assert!(ready(rig.poll(&mut timer, 1, 8)));
    assert!(rig.expire(0, 100).is_empty());
}

#[test]
fn the_last_waker_is_woken() {
    let rig = Rig::new(1);
    let mut timer = rig.armed(1, 1);
    assert!(rig.poll(&mut timer, 1, 2).is_pending());
    assert!(rig.poll(&mut timer, 1, 3).is_pending());
    assert_eq!(rig.expire(0, 1), [3]);
}

#[test]
fn what_is_due_at_the_first_poll_is_not_registered() {
    let rig = Rig::new(1);
    let mut timer = rig.timer(0);
    let waker = rig.waker(1);
    let past = Instant::now();
    assert!(ready(timer.poll(past, &mut Context::from_waker(&waker))));
    assert_eq!((rig.timers().next_deadline(), rig.unparks()), (None, 0));
}

#[test]
fn reset_earlier_and_later_keeps_the_waker() {
    let rig = Rig::new(1);
    let now = rig.at(0);
    let mut timer = rig.armed(5, 1);
    let _other = rig.armed(4, 2);
    timer.reset(rig.at(2), now);
    assert_eq!(rig.expire(0, 3), [1]);
    let mut timer = rig.armed(5, 3);
    timer.reset(rig.at(8), now);
    assert_eq!(rig.expire(0, 7), [2]);
    assert_eq!(rig.expire(0, 8), [3]);
}

#[test]
fn reset_into_the_past_wakes() {
    let rig = Rig::new(1);
    let mut timer = rig.armed(5, 1);
    timer.reset(rig.at(0), Instant::now());
    assert_eq!(rig.woken(), [1]);
    assert!(timer.is_elapsed());
    assert_eq!(rig.timers().next_deadline(), None);
    assert!(ready(rig.poll(&mut timer, 0, 1)));
}

#[test]
fn reset_after_firing_arms_again() {
    let rig = Rig::new(1);
    let mut timer = rig.armed(1, 1);
    assert_eq!(rig.expire(0, 1), [1]);
    // Fired, but its owner has not looked.
    timer.reset(rig.at(3), rig.at(1));
    assert!(!timer.is_elapsed());
    assert!(rig.poll(&mut timer, 3, 2).is_pending());
    assert_eq!(rig.expire(0, 3), [2]);
    assert!(ready(rig.poll(&mut timer, 3, 2)));
    timer.reset(rig.at(6), rig.at(3));
    assert!(!timer.is_elapsed());
    // A reset starts the timer without a poll.
    assert!(rig.expire(0, 6).is_empty());
    assert!(timer.is_elapsed());
}

#[test]
fn dropping_takes_it_out() {
    let rig = Rig::new(2);
    let mut other = rig.timer(1);
    assert!(rig.poll(&mut other, 2, 2).is_pending());
    let timer = rig.armed(1, 1);
    assert_eq!(rig.timers().next_deadline(), Some(rig.at(1)));
    drop(timer);
    assert_eq!(rig.timers().next_deadline(), Some(rig.at(2)));
    other.disarm();
    assert_eq!(rig.timers().next_deadline(), None);
    assert!(rig.expire(0, 9).is_empty() && rig.expire(1, 9).is_empty());
}

#[test]
fn the_sleeper_is_woken_for_earlier_timers_only() {
    let rig = Rig::new(3);
    assert_eq!(rig.prepare_sleep(0), None);
    rig.timers().end_sleep();
    let first = rig.armed(4, 1);
    assert_eq!(rig.unparks(), 0, "nobody slept");

    assert_eq!(rig.prepare_sleep(1), Some(3.0));
    let _later = rig.armed(5, 2);
    assert_eq!(rig.unparks(), 0);
    let mut earlier = rig.timer(2);
    assert!(rig.poll(&mut earlier, 3, 3).is_pending());
    assert_eq!(rig.unparks(), 1);
    // It is awake, or about to be: the rest of a burst says nothing.
    let _earliest = rig.armed(2, 4);
    assert_eq!(rig.unparks(), 0);
    rig.timers().end_sleep();

    assert_eq!(rig.prepare_sleep(1), Some(1.0));
    rig.timers().end_sleep();
    drop(first);
    assert_eq!(rig.prepare_sleep(9), Some(0.0));
    rig.timers().end_sleep();
}

#[test]
fn a_sleeper_without_timers_is_woken_by_any() {
    let rig = Rig::new(2);
    assert_eq!(rig.prepare_sleep(0), None);
    let mut timer = rig.armed(7, 1);
    assert_eq!(rig.unparks(), 1);
    rig.timers().end_sleep();
    assert_eq!(rig.prepare_sleep(0), Some(7.0));
    timer.reset(rig.at(6), rig.at(0));
    assert_eq!(rig.unparks(), 1);
    rig.timers().end_sleep();
}

#[test]
fn shutdown_fails_what_waits_and_what_comes() {
    let rig = Rig::new(2);
    let failed = |poll| matches!(poll, Poll::Ready(Err(e)) if Error::is_shutdown(&e));
    let mut waiting = rig.armed(5, 1);
    let mut over = rig.armed(1, 2);
    assert_eq!(rig.expire(0, 1), [2]);
    assert_eq!(rig.shutdown(), [1]);
    assert!(failed(rig.poll(&mut waiting, 5, 1)));
    assert!(failed(rig.poll(&mut waiting, 5, 1)));
    assert!(ready(rig.poll(&mut over, 1, 2)), "it fired before");
    over.reset(rig.at(9), rig.at(1));
    assert!(failed(rig.poll(&mut over, 9, 2)));
    assert!(failed(rig.poll(&mut rig.timer(1), 3, 3)));
    assert_eq!(rig.timers().next_deadline(), None);
    assert!(rig.shutdown().is_empty());
}

#[test]
fn a_deadline_beyond_the_clock_is_the_last_one() {
    let rig = Rig::new(1);
    let mut timer = rig.timer(0);
    let millennium = HOUR * 24 * 365 * 1000;
    let waker = rig.waker(1);
    let deadline = rig.at(0) + millennium;
    assert!(
        timer
            .poll(deadline, &mut Context::from_waker(&waker))
            .is_pending()
    );
    assert!(rig.expire(0, 1_000_000).is_empty());
    assert!(rig.prepare_sleep(0).unwrap() > 500.0 * 365.0 * 24.0);
    rig.timers().end_sleep();
    let earlier = rig.armed(1, 2);
    assert_eq!(rig.timers().next_deadline(), Some(rig.at(1)));
    drop(earlier);
    assert_eq!(rig.timers().nanos(rig.at(0) - Duration::ZERO), 0);
}

/// xorshift64*: deterministic, printed with the failure.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((drawn * u64::from(n)) >> 32) as u32
    }
}

/// Random operations beside a plain map from timer to (queue, deadline) of what is armed.
#[test]
fn like_a_plain_list() {
    for seed in 1..=40 {
        println!("seed {seed}");
        const QUEUES: usize = 3;
        let mut random = Random(seed * 0x9E37_79B9);
        let rig = Rig::new(QUEUES);
        let mut timers: BTreeMap<u32, (usize, Timer)> = BTreeMap::new();
        let mut armed: BTreeMap<u32, (usize, u32)> = BTreeMap::new();
        let mut hour = 1;
        for id in 0..2_000 {
            let deadline = hour + 1 + random.below(50);
            let any = |random: &mut Random, timers: &BTreeMap<u32, (usize, Timer)>| {
                let keys: Vec<u32> = timers.keys().copied().collect();
                (!keys.is_empty()).then(|| keys[random.below(keys.len() as u32) as usize])
            };
            match random.below(8) {
                0..=2 => {
                    let queue = random.below(QUEUES as u32) as usize;
                    let mut timer = rig.timer(queue);
                    assert!(rig.poll(&mut timer, deadline, id).is_pending());
                    timers.insert(id, (queue, timer));
                    armed.insert(id, (queue, deadline));
                }
                3 => {
                    if let Some(id) = any(&mut random, &timers) {
                        let (queue, timer) = timers.get_mut(&id).unwrap();
                        timer.reset(rig.at(deadline), rig.at(hour));
                        assert!(rig.poll(timer, deadline, id).is_pending());
                        armed.insert(id, (*queue, deadline));
                    }
                }
                4 => {
                    if let Some(id) = any(&mut random, &timers) {
                        timers.remove(&id);
                        armed.remove(&id);
                    }
                }
                5 => {
                    if let Some(id) = any(&mut random, &timers) {
                        let elapsed = timers[&id].1.is_elapsed();
                        assert_eq!(elapsed, !armed.contains_key(&id), "timer {id}");
                    }
                }
                _ => {
                    hour += random.below(4);
                    let queue = random.below(QUEUES as u32) as usize;
                    let mut due: Vec<(u32, u32)> = armed
                        .iter()
                        .filter(|&(_, &(q, at))| q == queue && at <= hour)
                        .map(|(&id, &(_, at))| (at, id))
                        .collect();
                    let fired = rig.expire(queue, hour);
                    let mut by_deadline: Vec<(u32, u32)> =
                        fired.iter().map(|id| (armed[id].1, *id)).collect();
                    assert!(
                        by_deadline.is_sorted_by_key(|&(at, _)| at),
                        "{by_deadline:?}"
                    );
                    by_deadline.sort_unstable();
                    due.sort_unstable();
                    assert_eq!(by_deadline, due);
                    armed.retain(|id, _| !fired.contains(id));
                }
            }
            let first = armed.values().map(|&(_, at)| rig.at(at)).min();
            assert_eq!(rig.timers().next_deadline(), first);
        }
    }
}
