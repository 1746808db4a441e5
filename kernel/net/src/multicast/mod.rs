//! Multicast groups: what sockets joined, with their source filters; what that makes an interface listen to; and when
//! that is told to the routers. The messages are `report`'s (IGMP, RFC 3376 and 2236; MLD, RFC 3810 and 2710).

mod member;
mod report;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicUsize, Ordering};

use errno::{Errno, Result};
use hashbrown::HashMap;

pub(crate) use member::{Members, Op, Update};
pub(crate) use report::{igmp_input, mld_input};

use crate::flow::KeyedState;
use crate::option::{Membership, Opt};
use crate::query::GroupInfo;
use crate::stack::{Chore, Stack};
use crate::sync::SpinLock;

const SECOND: u64 = 1_000_000_000;
/// A change is told so many times (the robustness variable).
const ROBUSTNESS: u8 = 2;
/// Between the first telling and the second, at most, in version 3 of IGMP and 2 of MLD.
const REPEAT_NS: u64 = SECOND;
/// The same in the older versions.
const REPEAT_OLD_NS: u64 = 10 * SECOND;
/// Groups of all sockets together.
const MOST: usize = 4096;

/// Which senders a listener wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// All but `sources`; else only those.
    pub exclude: bool,
    pub sources: Vec<IpAddr>,
}

impl Filter {
    /// What one listener for all senders wants.
    pub fn all() -> Filter {
        Filter {
            exclude: true,
            sources: Vec::new(),
        }
    }

    /// Nobody listens.
    pub fn is_none(&self) -> bool {
        !self.exclude && self.sources.is_empty()
    }

    /// What several listeners want together (RFC 3376 §3.2).
    fn merge<'a>(filters: impl Iterator<Item = &'a Filter> + Clone) -> Filter {
        let included = || {
            filters
                .clone()
                .filter(|f| !f.exclude)
                .flat_map(|f| &f.sources)
        };
        let mut excluding = filters.clone().filter(|f| f.exclude);
        let mut sources: Vec<IpAddr> = Vec::new();
        if let Some(first) = excluding.next() {
            sources.extend(first.sources.iter().filter(|s| {
                excluding.clone().all(|f| f.sources.contains(s)) && !included().any(|i| i == *s)
            }));
            return Filter {
                exclude: true,
                sources,
            };
        }
        for source in included() {
            if !sources.contains(source) {
                sources.push(*source);
            }
        }
        Filter {
            exclude: false,
            sources,
        }
    }
}

/// What is still to be told again of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pending {
    left: u8,
    at: u64,
    /// The filter's mode changed: the whole filter is told. Else only these sources are.
    mode: bool,
    allow: Vec<IpAddr>,
    block: Vec<IpAddr>,
}

/// One group on one interface.
struct Group {
    /// By whom it is wanted, and how.
    members: Vec<(usize, Filter)>,
    /// All of them together.
    filter: Filter,
    pending: Pending,
    /// When a query is answered, and the sources it asked for.
    answer_at: u64,
    asked: Vec<IpAddr>,
    /// We were the last to report it (RFC 2236 §3).
    last_reporter: bool,
}

/// What an interface's routers are like.
#[derive(Clone, Copy)]
struct Querier {
    /// Until when there is a router of the first version, and of IGMP's second.
    v1_until: u64,
    v2_until: u64,
    /// When a general query is answered.
    answer_at: u64,
}

impl Default for Querier {
    fn default() -> Self {
        Querier {
            v1_until: 0,
            v2_until: 0,
            answer_at: u64::MAX,
        }
    }
}

struct Table {
    groups: HashMap<(u32, IpAddr), Group, KeyedState>,
    /// By interface and whether it is for IPv6.
    queriers: Vec<((u32, bool), Querier)>,
}

impl Table {
    fn querier(&mut self, index: u32, v6: bool) -> &mut Querier {
        let key = (index, v6);
        let at = match self.queriers.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                self.queriers.push((key, Querier::default()));
                self.queriers.len() - 1
            }
        };
        &mut self.queriers[at].1
    }

    /// 1, 2 or 3: the IGMP version to speak; for MLD 1 is 2 and 2 is 3.
    fn version(&mut self, index: u32, v6: bool, now: u64) -> u8 {
        let querier = self.querier(index, v6);
        match (querier.v1_until > now, querier.v2_until > now) {
            (true, _) if v6 => 2,
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    }
}

/// The groups of an engine.
pub(crate) struct Groups {
    table: SpinLock<Table>,
    count: AtomicUsize,
}

impl Groups {
    pub fn new(hasher: KeyedState) -> Groups {
        Groups {
            table: SpinLock::new(Table {
                groups: HashMap::with_hasher(hasher),
                queriers: Vec::new(),
            }),
            count: AtomicUsize::new(0),
        }
    }

    /// Whether the interface listens to the group.
    pub fn listens(&self, group: IpAddr, index: u32) -> bool {
        let always = match group {
            IpAddr::V4(g) => g == ALL_HOSTS,
            // All nodes, and those who look for an address of ours.
            IpAddr::V6(g) => {
                let s = g.segments();
                (s[0] == 0xff02 || s[0] == 0xff01) && s[1..7] == [0; 6] && s[7] == 1
                    || s[0] == 0xff02 && s[1..5] == [0; 4] && s[5] == 1 && s[6] >> 8 == 0xff
            }
        };
        always
            || self.count.load(Ordering::Acquire) != 0
                && self.table.lock().groups.contains_key(&(index, group))
    }

    /// All of them, for `/proc/net/igmp` and the like.
    pub fn list(&self) -> Vec<GroupInfo> {
        let table = self.table.lock();
        let mut all: Vec<GroupInfo> = (table.groups.iter())
            .map(|((index, group), entry)| GroupInfo {
                index: *index,
                group: *group,
                users: entry.members.len(),
                exclude: entry.filter.exclude,
                sources: entry.filter.sources.clone(),
                reporter: entry.last_reporter,
            })
            .collect();
        all.sort_by_key(|g| (g.index, g.group));
        all
    }
}

const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// Whether routers are told of a group at all.
fn reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(g) => g != ALL_HOSTS,
        // Not all nodes, and nothing that stays on the machine.
        IpAddr::V6(g) => {
            g.segments()[0] & 0xf > 1 && g != Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
        }
    }
}

fn minus(a: &[IpAddr], b: &[IpAddr]) -> Vec<IpAddr> {
    a.iter().filter(|x| !b.contains(x)).copied().collect()
}

impl Stack {
    /// What a membership option asks for, with the interface found; `None` for another option.
    ///
    /// # Errors
    /// `EINVAL` for a group that is none, `ENODEV`.
    pub(crate) fn membership_change(&self, option: &Opt) -> Result<Option<Op>> {
        let place = |m: &Membership| {
            if m.group.is_multicast() {
                self.group_interface(m).map(|index| (m.group, index))
            } else {
                Err(Errno::EINVAL)
            }
        };
        Ok(Some(match option {
            Opt::Join(m) => Op::Join(place(m)?),
            // Without an interface, the group is left wherever it was joined first.
            Opt::Leave(m) if m.group.is_multicast() => {
                let named = m.index != 0 || !m.interface.is_unspecified();
                let index = if named { self.group_interface(m)? } else { 0 };
                Op::Leave((m.group, index))
            }
            Opt::Leave(_) => return Err(Errno::EINVAL),
            Opt::JoinSource(s) => Op::JoinSource(place(&s.membership)?, s.source),
            Opt::LeaveSource(s) => Op::LeaveSource(place(&s.membership)?, s.source),
            Opt::BlockSource(s) => Op::Block(place(&s.membership)?, s.source),
            Opt::UnblockSource(s) => Op::Unblock(place(&s.membership)?, s.source),
            Opt::SourceFilter(f) => Op::Set(
                place(&f.membership)?,
                Filter {
                    exclude: f.exclude,
                    sources: f.sources.clone(),
                },
            ),
            _ => return Ok(None),
        }))
    }

    /// Which interface a membership means.
    fn group_interface(&self, m: &Membership) -> Result<u32> {
        if m.index != 0 {
            return match self.interface(m.index) {
                Some(_) => Ok(m.index),
                None => Err(Errno::ENODEV),
            };
        }
        if !m.interface.is_unspecified() {
            let own = IpAddr::V4(m.interface);
            return self.local.read().get(&own).copied().ok_or(Errno::ENODEV);
        }
        self.route(m.group, None, 0)
            .map(|dst| dst.iface.index)
            .map_err(|_| Errno::ENODEV)
    }

    /// A listener, known by `id`, changed what it wants of a group.
    pub(crate) fn update_group(&self, id: usize, update: Update) {
        let now = self.now();
        let key = (update.index, update.group);
        let mut out = Vec::new();
        let mut again = u64::MAX;
        {
            let mut table = self.groups.table.lock();
            let version = table.version(update.index, update.group.is_ipv6(), now);
            if !table.groups.contains_key(&key) {
                if update.filter.is_none() || table.groups.len() >= MOST {
                    return;
                }
                table.groups.insert(
                    key,
                    Group {
                        members: Vec::new(),
                        filter: Filter::default(),
                        pending: Pending::default(),
                        answer_at: u64::MAX,
                        asked: Vec::new(),
                        last_reporter: false,
                    },
                );
            }
            let Some(entry) = table.groups.get_mut(&key) else {
                return;
            };
            entry.members.retain(|(member, _)| *member != id);
            if !update.filter.is_none() {
                entry.members.push((id, update.filter));
            }
            let new = Filter::merge(entry.members.iter().map(|(_, f)| f));
            let old = core::mem::replace(&mut entry.filter, new);
            if reported(update.group) && old != entry.filter {
                out = entry.change(update.group, &old, version, now, self.random());
                again = entry.pending.at;
            }
            // A group that is left is told of once more from the list of those that were.
            if entry.members.is_empty() && entry.pending.left == 0 {
                table.groups.remove(&key);
            }
            self.groups
                .count
                .store(table.groups.len(), Ordering::Release);
        }
        self.send_reports(update.index, update.group.is_ipv6(), out, now);
        if again != u64::MAX {
            self.arm_chore(Chore::Multicast, again);
        }
    }

    /// A listener is gone.
    pub(crate) fn leave_groups(&self, id: usize, left: Vec<Update>) {
        for update in left {
            self.update_group(id, update);
        }
    }

    /// The version of IGMP that an interface's routers are spoken to in.
    pub fn igmp_version(&self, index: u32) -> u8 {
        let now = self.now();
        self.groups.table.lock().version(index, false, now)
    }

    /// The multicast groups that interfaces listen to.
    pub fn groups(&self) -> Vec<GroupInfo> {
        self.groups.list()
    }

    /// Tells what is due: changes once more, answers to queries.
    pub(crate) fn run_multicast(&self, now: u64) {
        let mut out: Vec<(u32, bool, Vec<report::Record>)> = Vec::new();
        let mut next = u64::MAX;
        {
            let mut table = self.groups.table.lock();
            let keys: Vec<(u32, IpAddr)> = table.groups.keys().copied().collect();
            for key @ (index, group) in keys {
                let version = table.version(index, group.is_ipv6(), now);
                let general = table.querier(index, group.is_ipv6()).answer_at <= now;
                let Some(entry) = table.groups.get_mut(&key) else {
                    continue;
                };
                let mut records = Vec::new();
                if entry.pending.left > 0 && entry.pending.at <= now {
                    records.extend(entry.repeat(group, version, now, self.random()));
                }
                if entry.answer_at <= now || general {
                    records.extend(entry.answer(group, version, general));
                }
                if entry.pending.left > 0 {
                    next = next.min(entry.pending.at);
                }
                next = next.min(entry.answer_at);
                let gone = entry.members.is_empty() && entry.pending.left == 0;
                if gone {
                    table.groups.remove(&key);
                }
                match out
                    .iter_mut()
                    .find(|(i, v6, _)| (*i, *v6) == (index, group.is_ipv6()))
                {
                    Some((_, _, all)) => all.extend(records),
                    None => out.push((index, group.is_ipv6(), records)),
                }
            }
            for (_, querier) in &mut table.queriers {
                if querier.answer_at <= now {
                    querier.answer_at = u64::MAX;
                }
                next = next.min(querier.answer_at);
            }
            self.groups
                .count
                .store(table.groups.len(), Ordering::Release);
        }
        for (index, v6, records) in out {
            self.send_reports(index, v6, records, now);
        }
        if next != u64::MAX {
            self.arm_chore(Chore::Multicast, next);
        }
    }

    /// The interface's own wish to hear of those who look for an IPv6 address of ours.
    pub(crate) fn listen_for(&self, index: u32, addr: Ipv6Addr, on: bool) {
        let low = addr.to_bits() as usize ^ (addr.to_bits() >> 64) as usize;
        self.update_group(
            low | 1,
            Update {
                group: crate::ndisc::solicited_node(addr).into(),
                index,
                filter: if on { Filter::all() } else { Filter::default() },
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(exclude: bool, last: &[u8]) -> Filter {
        Filter {
            exclude,
            sources: last.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect(),
        }
    }

    #[test]
    fn filters_merge_as_the_rfc_has_it() {
        let merge = |all: &[Filter]| Filter::merge(all.iter());
        assert!(merge(&[]).is_none());
        // RFC 3376 §3.2's example.
        let all = [
            filter(true, &[1, 2, 3, 4]),
            filter(true, &[2, 3, 4, 5]),
            filter(false, &[4, 5, 6]),
        ];
        assert_eq!(merge(&all), filter(true, &[2, 3]));
        let all = [filter(false, &[1, 2]), filter(false, &[2, 3])];
        assert_eq!(merge(&all), filter(false, &[1, 2, 3]));
        assert_eq!(
            merge(&[filter(true, &[]), filter(true, &[1])]),
            filter(true, &[])
        );
    }
}
