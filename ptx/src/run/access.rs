//! Loads, stores, atomics and asynchronous copies.

use super::block::{Block, Trouble};
use super::frame::lanes;
use super::warp::{LaneCopies, PendingCopy, Warp};
use crate::arithmetic::{
    LOCAL_WINDOW, Lanes, SHARED_WINDOW, WINDOW_BYTES, extend_sign, truncate, update,
};
use crate::error::{Access, FaultKind, Space};
use crate::memory::{Conflict, Visit};
use crate::program::{Address, AtomicOp, Op, StateSpace, Target, Type, Value};

/// The most bytes that a lane accesses at once: decoding lets no more through.
const MOST_BYTES: usize = 32;

/// What a lane does to memory.
#[derive(Clone, Copy)]
struct Request {
    space: Space,
    address: u64,
    bytes: usize,
    kind: Kind,
}

/// How it does it; a strong access does not race with others that are strong or atomic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    StrongRead,
    Write,
    StrongWrite,
    Update,
}

impl Kind {
    fn reads(self) -> bool {
        matches!(self, Kind::Read | Kind::StrongRead | Kind::Update)
    }

    fn access(self) -> Access {
        if matches!(self, Kind::Read | Kind::StrongRead) { Access::Read } else { Access::Write }
    }

    fn is_atomic(self) -> bool {
        matches!(self, Kind::StrongRead | Kind::StrongWrite | Kind::Update)
    }
}

impl<'p> Block<'_, 'p, '_> {
    /// Runs an instruction that accesses memory.
    pub(super) fn access(&mut self, warp: &mut Warp<'p>, op: &Op, on: u32) -> Result<(), Trouble> {
        match op {
            Op::Load { address, ty, to, strong } => self.load(warp, *address, *ty, to, *strong, on),
            Op::Store { address, ty, from, strong } => {
                self.store(warp, *address, *ty, from, *strong, on)
            }
            Op::Atomic { address, ty, op, to, from } => {
                self.atomic(warp, *address, *ty, *op, *to, *from, on)
            }
            Op::Copy { to, from, bytes, read } => {
                self.start_copy(warp, *to, *from, *bytes, *read, on);
                Ok(())
            }
            Op::CommitCopies => {
                warp.copies.resize_with(32, LaneCopies::default);
                for lane in lanes(on) {
                    let copies = &mut warp.copies[lane];
                    let open = std::mem::take(&mut copies.open);
                    copies.groups.push_back(open);
                }
                Ok(())
            }
            Op::WaitCopies(pending) => self.wait_for_copies(warp, *pending, on),
            // The caller has done all others.
            _ => Ok(()),
        }
    }

    fn addresses(&self, warp: &Warp<'p>, address: Address) -> Lanes {
        let mut scratch = [0; 32];
        let base = self.read(warp, address.base, &mut scratch);
        base.map(|base| base.wrapping_add(address.offset))
    }

    /// Finds the space of an address, and where it lies there.
    fn resolve(space: StateSpace, address: u64) -> (Space, u64) {
        match space {
            StateSpace::Global => (Space::Global, address),
            // They are of 32 bits.
            StateSpace::Shared => (Space::Shared, truncate(address, 32)),
            StateSpace::Local => (Space::Local, truncate(address, 32)),
            StateSpace::Parameter => (Space::Parameter, address),
            StateSpace::Generic if address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES => {
                (Space::Shared, address - SHARED_WINDOW)
            }
            StateSpace::Generic if address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES => {
                (Space::Local, address - LOCAL_WINDOW)
            }
            StateSpace::Generic => (Space::Global, address),
        }
    }

    /// Checks a request, and returns the bytes.
    fn touch<'s>(
        &'s mut self,
        warp: &'s mut Warp<'p>,
        lane: usize,
        request: Request,
    ) -> Result<&'s mut [u8], Trouble> {
        let Request { space, address, bytes, kind } = request;
        let trouble = |kind| Trouble { lane, kind };
        if space != Space::Parameter && address % bytes as u64 != 0 {
            return Err(trouble(FaultKind::Misaligned { space, address, bytes }));
        }
        let beyond = || trouble(FaultKind::OutOfBounds { space, address, bytes });
        let (stamp, shape) = (self.stamp(warp, lane), self.grid.shape);
        let (region, at, is_private) = match space {
            Space::Parameter => {
                return warp.frame.parameter(lane, address, bytes).ok_or_else(beyond);
            }
            Space::Local => {
                match warp.local.get_mut(lane).filter(|region| region.is_inside(address, bytes)) {
                    Some(region) => (region, address as usize, true),
                    None => return Err(beyond()),
                }
            }
            Space::Shared if self.shared.is_inside(address, bytes) => {
                (&mut *self.shared, address as usize, false)
            }
            Space::Shared => return Err(beyond()),
            Space::Global => match self.grid.memory.find(address, bytes) {
                Some((region, at)) => (region, at, false),
                None => return Err(beyond()),
            },
        };
        if kind.reads() && self.grid.options.unwritten && !region.is_written(at, bytes) {
            return Err(trouble(FaultKind::Unwritten { space, address, bytes }));
        }
        let access = kind.access();
        if access == Access::Write {
            region.mark_written(at, bytes);
        }
        if self.grid.options.races && !is_private {
            let visit = Visit {
                stamp,
                seen: &warp.seen,
                first_block: shape.first_block,
                acquired: &self.acquired,
                access,
                atomic: kind.is_atomic(),
            };
            if let Some(Conflict { earlier, block, thread }) = region.visit(at, bytes, &visit) {
                let other = thread.map(|thread| shape.thread(block, thread));
                return Err(trouble(FaultKind::Race { space, address, access, earlier, other }));
            }
        }
        Ok(&mut region.bytes[at..at + bytes])
    }

    /// Counts a request of the warp.
    fn count(
        &mut self,
        requests: &[(Space, u64); 32],
        bytes: usize,
        on: u32,
        reads: bool,
        writes: bool,
    ) {
        if !self.grid.options.transfers {
            return;
        }
        let counts = &mut self.grid.counts;
        let of = |space: Space| {
            lanes(on).map(|lane| requests[lane]).filter(move |r| r.0 == space).map(|r| r.1)
        };
        if of(Space::Shared).next().is_some() {
            counts.shared(of(Space::Shared), bytes);
        }
        let global = of(Space::Global).count() as u64;
        if global > 0 {
            counts.global(of(Space::Global), bytes);
            counts.global_bytes_read += if reads { global * bytes as u64 } else { 0 };
            counts.global_bytes_written += if writes { global * bytes as u64 } else { 0 };
        }
    }

    fn load(
        &mut self,
        warp: &mut Warp<'p>,
        address: Address,
        ty: Type,
        to: &[(Target, u32)],
        strong: bool,
        on: u32,
    ) -> Result<(), Trouble> {
        let (size, addresses) = (ty.bytes(), self.addresses(warp, address));
        let bytes = size * to.len();
        let mut requests = [(Space::Parameter, 0); 32];
        let mut read = [[0_u8; MOST_BYTES]; 32];
        for lane in lanes(on) {
            let (space, address) = Self::resolve(address.space, addresses[lane]);
            requests[lane] = (space, address);
            let request = Request {
                space,
                address,
                bytes,
                kind: if strong { Kind::StrongRead } else { Kind::Read },
            };
            read[lane][..bytes].copy_from_slice(self.touch(warp, lane, request)?);
        }
        for (i, &(target, register_bits)) in to.iter().enumerate() {
            let mut values = [0; 32];
            for lane in lanes(on) {
                let mut wide = [0; 8];
                wide[..size].copy_from_slice(&read[lane][i * size..(i + 1) * size]);
                let x = u64::from_le_bytes(wide);
                // A wider register holds the sign as well.
                values[lane] = if ty.is_signed() {
                    truncate(extend_sign(x, ty.bits()), register_bits)
                } else {
                    x
                };
            }
            warp.frame.write(target, on, &values);
        }
        self.count(&requests, bytes, on, true, false);
        Ok(())
    }

    fn store(
        &mut self,
        warp: &mut Warp<'p>,
        address: Address,
        ty: Type,
        from: &[Value],
        strong: bool,
        on: u32,
    ) -> Result<(), Trouble> {
        let (size, addresses) = (ty.bytes(), self.addresses(warp, address));
        let bytes = size * from.len();
        let mut requests = [(Space::Parameter, 0); 32];
        let mut scratch = [0; 32];
        let mut wrote = [[0_u8; MOST_BYTES]; 32];
        for (i, &value) in from.iter().enumerate() {
            let values = self.read(warp, value, &mut scratch);
            for lane in lanes(on) {
                wrote[lane][i * size..(i + 1) * size]
                    .copy_from_slice(&values[lane].to_le_bytes()[..size]);
            }
        }
        for lane in lanes(on) {
            let (space, address) = Self::resolve(address.space, addresses[lane]);
            requests[lane] = (space, address);
            let request = Request {
                space,
                address,
                bytes,
                kind: if strong { Kind::StrongWrite } else { Kind::Write },
            };
            self.touch(warp, lane, request)?.copy_from_slice(&wrote[lane][..bytes]);
        }
        self.count(&requests, bytes, on, false, true);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn atomic(
        &mut self,
        warp: &mut Warp<'p>,
        address: Address,
        ty: Type,
        op: AtomicOp,
        to: Target,
        from: [Value; 2],
        on: u32,
    ) -> Result<(), Trouble> {
        let (bytes, addresses) = (ty.bytes(), self.addresses(warp, address));
        let (mut requests, mut olds) = ([(Space::Parameter, 0); 32], [0; 32]);
        for lane in lanes(on) {
            let (space, address) = Self::resolve(address.space, addresses[lane]);
            requests[lane] = (space, address);
            if space == Space::Global {
                self.synchronize(warp, address);
            }
            let [b, c] = from.map(|value| self.read_lane(warp, value, lane));
            let request = Request { space, address, bytes, kind: Kind::Update };
            let memory = self.touch(warp, lane, request)?;
            let mut wide = [0; 8];
            wide[..bytes].copy_from_slice(memory);
            let old = u64::from_le_bytes(wide);
            memory.copy_from_slice(&update(op, ty, old, b, c).to_le_bytes()[..bytes]);
            olds[lane] = old;
        }
        warp.frame.write(to, on, &olds);
        self.count(&requests, bytes, on, true, true);
        Ok(())
    }

    /// An atomic behind a fence publishes what the block wrote; one at the same address sees it.
    fn synchronize(&mut self, warp: &Warp<'p>, address: u64) {
        if let Some(blocks) = self.grid.published.get(&address) {
            for block in blocks {
                if *block != self.number && !self.acquired.contains(block) {
                    self.acquired.push(*block);
                }
            }
        }
        if warp.has_fenced {
            let blocks = self.grid.published.entry(address).or_default();
            if blocks.last() != Some(&self.number) {
                blocks.push(self.number);
            }
        }
    }

    fn start_copy(
        &mut self,
        warp: &mut Warp<'p>,
        to: Address,
        from: Address,
        bytes: usize,
        read: Option<Value>,
        on: u32,
    ) {
        let (targets, sources) = (self.addresses(warp, to), self.addresses(warp, from));
        warp.copies.resize_with(32, LaneCopies::default);
        for lane in lanes(on) {
            let read =
                read.map_or(bytes, |read| truncate(self.read_lane(warp, read, lane), 32) as usize);
            let copy = PendingCopy {
                to: truncate(targets[lane], 32),
                from: sources[lane],
                bytes,
                read: read.min(bytes),
            };
            warp.copies[lane].open.push(copy);
        }
        self.count(&sources.map(|address| (Space::Global, address)), bytes, on, true, false);
        self.count(
            &targets.map(|address| (Space::Shared, truncate(address, 32))),
            bytes,
            on,
            false,
            true,
        );
    }

    /// Does the copies that a wait waits for: nobody can rely on them before.
    fn wait_for_copies(
        &mut self,
        warp: &mut Warp<'p>,
        pending: Option<usize>,
        on: u32,
    ) -> Result<(), Trouble> {
        if warp.copies.is_empty() {
            return Ok(());
        }
        for lane in lanes(on) {
            let copies = &mut warp.copies[lane];
            let done = copies.groups.len().saturating_sub(pending.unwrap_or(0));
            let mut due: Vec<PendingCopy> = copies.groups.drain(..done).flatten().collect();
            if pending.is_none() {
                due.append(&mut copies.open);
            }
            for copy in due {
                self.copy(warp, lane, copy)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, warp: &mut Warp<'p>, lane: usize, copy: PendingCopy) -> Result<(), Trouble> {
        let mut buffer = [0; 16];
        if copy.read > 0 {
            let whole = if copy.read == copy.bytes { copy.bytes } else { 1 };
            for at in (0..copy.read).step_by(whole) {
                let address = copy.from.wrapping_add(at as u64);
                let request =
                    Request { space: Space::Global, address, bytes: whole, kind: Kind::Read };
                buffer[at..at + whole].copy_from_slice(self.touch(warp, lane, request)?);
            }
        }
        let request = Request {
            space: Space::Shared,
            address: copy.to,
            bytes: copy.bytes,
            kind: Kind::Write,
        };
        self.touch(warp, lane, request)?.copy_from_slice(&buffer[..copy.bytes]);
        Ok(())
    }
}
