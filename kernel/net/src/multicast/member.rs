//! The groups of one socket, and what the membership options do to them (`ip(7)`, RFC 3678).

use alloc::vec::Vec;
use core::net::IpAddr;

use errno::{Errno, Result};

use super::Filter;

/// `igmp_max_memberships` and more: groups of one socket.
const MAX_GROUPS: usize = 64;
/// `igmp_max_msf` and more: sources of one group.
const MAX_SOURCES: usize = 64;

/// A group and the interface it is joined on.
pub(crate) type Place = (IpAddr, u32);

/// A change that a program asks for.
pub(crate) enum Op {
    Join(Place),
    /// Interface 0 is any.
    Leave(Place),
    JoinSource(Place, IpAddr),
    LeaveSource(Place, IpAddr),
    Block(Place, IpAddr),
    Unblock(Place, IpAddr),
    Set(Place, Filter),
}

/// What a listener wants of a group from now on.
pub(crate) struct Update {
    pub group: IpAddr,
    pub index: u32,
    pub filter: Filter,
}

/// The groups of one socket.
#[derive(Default)]
pub(crate) struct Members {
    list: Vec<(Place, Filter)>,
}

impl Members {
    /// Makes a change, and says what is to be told to [`Stack::update_group`](crate::Stack).
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EINVAL`, `ENOBUFS`, as in `ip(7)`.
    pub fn apply(&mut self, op: Op) -> Result<Update> {
        let find = |list: &[(Place, Filter)], place: Place| {
            list.iter().position(|((group, index), _)| {
                *group == place.0 && (place.1 == 0 || *index == place.1)
            })
        };
        let (place, at) = match op {
            Op::Join(place) => {
                if find(&self.list, place).is_some() {
                    return Err(Errno::EADDRINUSE);
                }
                if self.list.len() >= MAX_GROUPS {
                    return Err(Errno::ENOBUFS);
                }
                self.list.push((place, Filter::all()));
                (place, self.list.len() - 1)
            }
            Op::Leave(place) => {
                let at = find(&self.list, place).ok_or(Errno::EADDRNOTAVAIL)?;
                self.list[at].1 = Filter::default();
                (self.list[at].0, at)
            }
            Op::JoinSource(place, source) => match find(&self.list, place) {
                Some(at) => {
                    self.list[at].1.add(false, source)?;
                    (place, at)
                }
                None if self.list.len() >= MAX_GROUPS => return Err(Errno::ENOBUFS),
                None => {
                    let filter = Filter {
                        exclude: false,
                        sources: alloc::vec![source],
                    };
                    self.list.push((place, filter));
                    (place, self.list.len() - 1)
                }
            },
            Op::LeaveSource(place, source) => {
                let at = find(&self.list, place).ok_or(Errno::EINVAL)?;
                self.list[at].1.drop(false, source)?;
                (place, at)
            }
            Op::Block(place, source) => {
                let at = find(&self.list, place).ok_or(Errno::EINVAL)?;
                self.list[at].1.add(true, source)?;
                (place, at)
            }
            Op::Unblock(place, source) => {
                let at = find(&self.list, place).ok_or(Errno::EINVAL)?;
                self.list[at].1.drop(true, source)?;
                (place, at)
            }
            Op::Set(place, filter) => {
                let at = find(&self.list, place).ok_or(Errno::EINVAL)?;
                if filter.sources.len() > MAX_SOURCES {
                    return Err(Errno::ENOBUFS);
                }
                self.list[at].1 = filter;
                (place, at)
            }
        };
        let filter = self.list[at].1.clone();
        if filter.is_none() {
            self.list.swap_remove(at);
        }
        Ok(Update {
            group: place.0,
            index: place.1,
            filter,
        })
    }

    /// Whether a packet to `group` from `source` is wanted; `all` for a group that was not joined (`IP_MULTICAST_ALL`).
    pub fn allows(&self, group: IpAddr, index: u32, source: IpAddr, all: bool) -> bool {
        let mine = |(place, _): &&(Place, Filter)| *place == (group, index);
        match self.list.iter().find(mine) {
            Some((_, filter)) => filter.exclude != filter.sources.contains(&source),
            None => all,
        }
    }

    /// Leaves all groups.
    pub fn take_all(&mut self) -> Vec<Update> {
        let gone = |(place, _): (Place, Filter)| Update {
            group: place.0,
            index: place.1,
            filter: Filter::default(),
        };
        core::mem::take(&mut self.list)
            .into_iter()
            .map(gone)
            .collect()
    }
}

impl Filter {
    fn add(&mut self, exclude: bool, source: IpAddr) -> Result<()> {
        if self.exclude != exclude {
            return Err(Errno::EINVAL);
        }
        if self.sources.contains(&source) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.sources.len() >= MAX_SOURCES {
            return Err(Errno::ENOBUFS);
        }
        self.sources.push(source);
        Ok(())
    }

    fn drop(&mut self, exclude: bool, source: IpAddr) -> Result<()> {
        if self.exclude != exclude {
            return Err(Errno::EINVAL);
        }
        let at = self.sources.iter().position(|s| *s == source);
        self.sources.swap_remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_answer_as_linux_does() {
        let mut members = Members::default();
        let place = (IpAddr::from([239, 1, 1, 1]), 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let code = |r: Result<Update>| r.err();
        assert_eq!(
            code(members.apply(Op::Leave(place))),
            Some(Errno::EADDRNOTAVAIL)
        );
        assert_eq!(code(members.apply(Op::Join(place))), None);
        assert_eq!(
            code(members.apply(Op::Join(place))),
            Some(Errno::EADDRINUSE)
        );
        assert_eq!(
            code(members.apply(Op::JoinSource(place, a))),
            Some(Errno::EINVAL)
        );
        assert_eq!(code(members.apply(Op::Block(place, a))), None);
        assert_eq!(
            code(members.apply(Op::Block(place, a))),
            Some(Errno::EADDRNOTAVAIL)
        );
        assert!(members.allows(place.0, 2, b, false));
        assert!(!members.allows(place.0, 2, a, true));
        assert!(!members.allows(place.0, 1, a, false));
        assert_eq!(code(members.apply(Op::Unblock(place, a))), None);
        assert_eq!(code(members.apply(Op::Leave((place.0, 0)))), None);
        assert_eq!(code(members.apply(Op::JoinSource(place, a))), None);
        assert!(members.allows(place.0, 2, a, false));
        assert!(!members.allows(place.0, 2, b, true));
        let update = members.apply(Op::LeaveSource(place, a)).ok();
        assert!(update.is_some_and(|u| u.filter.is_none()));
        assert_eq!(
            code(members.apply(Op::LeaveSource(place, a))),
            Some(Errno::EINVAL)
        );
    }
}
