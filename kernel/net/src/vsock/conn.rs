//! The state of one vsock socket: where it stands, what waits to be read, and the credit each side has (virtio 1.2,
//! 5.10.6.3). Pure: packets to be sent are returned.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use drivers::vsock::{HEADER_LEN, MAX_DATA};
use errno::Errno;

use super::VsockSocket;
use super::header::{EOM, EOR, Header, NO_RECEIVE, NO_SEND, SEQPACKET, STREAM, VsockAddr, op};

/// `VSOCK_DEFAULT_BUFFER_SIZE` and its bounds.
const BUFFER: u64 = 256 * 1024;
const BUFFER_MIN: u64 = 128;
/// Streams of small packets are glued up to this length.
const GLUED: usize = 4096;

/// Where a socket stands.
pub(super) enum State {
    Idle,
    Listening {
        backlog: usize,
        queue: VecDeque<Arc<VsockSocket>>,
    },
    Connecting,
    Connected,
    /// Closed here; the other side was told and has not answered yet.
    Closing,
    /// It was connected. What came before the end can still be read.
    Over,
}

/// Data that waits.
pub(super) struct Chunk {
    pub bytes: Vec<u8>,
    pub from: usize,
    /// The last of a message, and whether `MSG_EOR` was given with it.
    pub end: bool,
    pub eor: bool,
}

impl Chunk {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.from
    }
}

/// What a packet did.
#[derive(Default)]
pub(super) struct Outcome {
    /// To be sent in answer.
    pub answer: Option<Box<[u8]>>,
    /// Whether somebody may want to know.
    pub notify: bool,
    /// Whether the connection is no more.
    pub gone: bool,
}

pub(super) struct Inner {
    pub stream: bool,
    pub state: State,
    pub bound: Option<VsockAddr>,
    pub local: VsockAddr,
    pub peer: Option<VsockAddr>,
    pub rx: VecDeque<Chunk>,
    /// Bytes that came and were not taken yet.
    pub rx_bytes: u32,
    /// Whole messages.
    pub messages: usize,
    pub buffer: u64,
    pub buffer_min: u64,
    pub buffer_max: u64,
    /// Bytes taken, as counted and as the peer was told last.
    fwd_cnt: u32,
    told_fwd: u32,
    /// Bytes sent; room at the peer, and how many it has taken.
    tx_cnt: u32,
    peer_alloc: u32,
    peer_fwd: u32,
    asked_credit: bool,
    /// What was shut down here, and there.
    pub shut: u32,
    pub peer_shut: u32,
    pub error: Option<Errno>,
    /// When an attempt to connect, or the wait for the end, is given up.
    pub deadline: Option<u64>,
    pub connect_timeout_ns: u64,
}

impl Inner {
    pub fn new(stream: bool) -> Inner {
        let nowhere = VsockAddr {
            cid: super::CID_ANY,
            port: super::PORT_ANY,
        };
        Inner {
            stream,
            state: State::Idle,
            bound: None,
            local: nowhere,
            peer: None,
            rx: VecDeque::new(),
            rx_bytes: 0,
            messages: 0,
            buffer: BUFFER,
            buffer_min: BUFFER_MIN,
            buffer_max: BUFFER,
            fwd_cnt: 0,
            told_fwd: 0,
            tx_cnt: 0,
            peer_alloc: 0,
            peer_fwd: 0,
            asked_credit: false,
            shut: 0,
            peer_shut: 0,
            error: None,
            deadline: None,
            connect_timeout_ns: 2_000_000_000,
        }
    }

    pub fn kind(&self) -> u16 {
        if self.stream { STREAM } else { SEQPACKET }
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// Room in the buffer, as it is told to the peer.
    fn alloc(&self) -> u32 {
        u32::try_from(self.buffer).unwrap_or(u32::MAX)
    }

    /// How much may be sent now.
    pub fn credit(&self) -> u32 {
        let under_way = self.tx_cnt.wrapping_sub(self.peer_fwd);
        self.peer_alloc.saturating_sub(under_way)
    }

    /// The most that one message can have.
    pub fn peer_room(&self) -> u32 {
        self.peer_alloc
    }

    /// Sets `len` bytes of credit aside.
    pub fn reserve(&mut self, len: usize) {
        self.tx_cnt = self.tx_cnt.wrapping_add(len as u32);
    }

    /// Gives back credit for bytes that were not sent; nothing was sent after them.
    pub fn unreserve(&mut self, len: usize) {
        self.tx_cnt = self.tx_cnt.wrapping_sub(len as u32);
    }

    /// Fills in the header of a packet whose data, if any, lies behind it.
    pub fn packet(&mut self, op: u16, flags: u32, mut packet: Box<[u8]>) -> Box<[u8]> {
        self.told_fwd = self.fwd_cnt;
        Header {
            src: self.local,
            dst: self.peer.unwrap_or(self.local),
            len: (packet.len() - HEADER_LEN) as u32,
            kind: self.kind(),
            op,
            flags,
            buf_alloc: self.alloc(),
            fwd_cnt: self.fwd_cnt,
        }
        .write(&mut packet);
        packet
    }

    /// A packet without data.
    pub fn bare(&mut self, op: u16, flags: u32) -> Box<[u8]> {
        self.packet(op, flags, alloc::vec![0; HEADER_LEN].into())
    }

    /// Asks the peer for its credit, once for each time there is too little.
    pub fn credit_request(&mut self) -> Option<Box<[u8]>> {
        (!core::mem::replace(&mut self.asked_credit, true))
            .then(|| self.bare(op::CREDIT_REQUEST, 0))
    }

    /// Notes that `len` bytes were taken, and tells the peer where it may be waiting for that.
    pub fn taken(&mut self, len: usize) -> Option<Box<[u8]>> {
        self.rx_bytes = self.rx_bytes.saturating_sub(len as u32);
        self.fwd_cnt = self.fwd_cnt.wrapping_add(len as u32);
        let untold = self.fwd_cnt.wrapping_sub(self.told_fwd);
        let much = untold >= self.alloc() / 4;
        // A message that needs all of the room must be able to begin.
        let whole = !self.stream && self.rx_bytes == 0 && untold > 0;
        (self.is_connected() && (much || whole)).then(|| self.bare(op::CREDIT_UPDATE, 0))
    }

    /// A packet of this connection: its header, and its data from `HEADER_LEN` up to `end`.
    pub fn input(&mut self, header: &Header, bytes: Box<[u8]>, end: usize) -> Outcome {
        self.peer_alloc = header.buf_alloc;
        self.peer_fwd = header.fwd_cnt;
        self.asked_credit = false;
        match self.state {
            State::Connecting => self.input_connecting(header),
            State::Connected => self.input_connected(header, bytes, end),
            State::Closing => match header.op {
                op::RST => self.over(None),
                op::SHUTDOWN if header.flags & 3 == 3 => self.refuse(header, None),
                _ => Outcome::default(),
            },
            // A connection that is no more is in no table; its last packets may be on their way.
            State::Idle | State::Listening { .. } | State::Over => Outcome::default(),
        }
    }

    fn input_connecting(&mut self, header: &Header) -> Outcome {
        match header.op {
            op::RESPONSE => {
                self.state = State::Connected;
                self.deadline = None;
                Outcome {
                    notify: true,
                    ..Outcome::default()
                }
            }
            op::RST => self.over(Some(Errno::ECONNRESET)),
            _ => self.refuse(header, Some(Errno::EPROTO)),
        }
    }

    fn input_connected(&mut self, header: &Header, bytes: Box<[u8]>, end: usize) -> Outcome {
        let mut outcome = Outcome {
            notify: true,
            ..Outcome::default()
        };
        match header.op {
            op::RW => {
                if !self.enqueue(header, bytes, end) {
                    // More than was allowed: what is missing from the stream would never be noticed.
                    return self.refuse(header, Some(Errno::ECONNRESET));
                }
            }
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => outcome.answer = Some(self.bare(op::CREDIT_UPDATE, 0)),
            op::SHUTDOWN => {
                self.peer_shut |= header.flags & (NO_RECEIVE | NO_SEND);
                if self.peer_shut == NO_RECEIVE | NO_SEND {
                    return self.refuse(header, None);
                }
            }
            op::RST => return self.over(None),
            _ => outcome.notify = false,
        }
        outcome
    }

    fn enqueue(&mut self, header: &Header, bytes: Box<[u8]>, end: usize) -> bool {
        let len = end - HEADER_LEN;
        let fits = u64::from(self.rx_bytes) + len as u64 <= self.buffer;
        if !fits || self.rx.len() as u64 > self.buffer + 64 {
            return false;
        }
        // Nobody reads any more.
        if self.shut & NO_RECEIVE != 0 || self.stream && len == 0 {
            self.fwd_cnt = self.fwd_cnt.wrapping_add(len as u32);
            return true;
        }
        self.rx_bytes += len as u32;
        if self.stream
            && let Some(last) = self.rx.back_mut()
            && last.bytes.len() + len <= GLUED
        {
            last.bytes.extend_from_slice(&bytes[HEADER_LEN..end]);
            return true;
        }
        let mut bytes = bytes.into_vec();
        bytes.truncate(end);
        let ends = !self.stream && header.flags & EOM != 0;
        self.messages += usize::from(ends);
        self.rx.push_back(Chunk {
            bytes,
            from: HEADER_LEN,
            end: ends,
            eor: ends && header.flags & EOR != 0,
        });
        true
    }

    /// The connection is no more.
    pub fn over(&mut self, error: Option<Errno>) -> Outcome {
        // Who tried in vain may try again.
        self.state = match self.state {
            State::Connecting => State::Idle,
            _ => State::Over,
        };
        self.deadline = None;
        self.peer_shut = NO_RECEIVE | NO_SEND;
        if error.is_some() {
            self.error = error;
        }
        Outcome {
            notify: true,
            gone: true,
            ..Outcome::default()
        }
    }

    fn refuse(&mut self, header: &Header, error: Option<Errno>) -> Outcome {
        Outcome {
            answer: Some(header.refusal()),
            ..self.over(error)
        }
    }

    /// How many bytes one packet may have now, of `want`; a stream's may be fewer.
    pub fn next_len(&self, want: usize) -> usize {
        want.min(MAX_DATA).min(self.credit() as usize)
    }

    /// The peer of a new connection, and its credit.
    pub fn connected_to(&mut self, header: &Header) {
        self.state = State::Connected;
        self.local = header.dst;
        self.peer = Some(header.src);
        self.peer_alloc = header.buf_alloc;
        self.peer_fwd = header.fwd_cnt;
    }

    /// Before another attempt to connect.
    pub fn forget(&mut self) {
        self.peer_shut = 0;
        self.shut = 0;
        self.error = None;
        (self.tx_cnt, self.fwd_cnt, self.told_fwd) = (0, 0, 0);
        (self.peer_alloc, self.peer_fwd) = (0, 0);
        self.asked_credit = false;
    }
}
