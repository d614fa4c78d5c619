//! [`Marks`]: which of its copies each place had at each snapshot.

/// How many snapshots a population keeps at most.
pub const MOST_SNAPSHOTS: usize = 128;

/// No copy.
pub(super) const NONE: u8 = u8::MAX;

/// Which of its copies each place had at each snapshot. Snapshots between which nothing changed have one list.
///
/// A place goes through its copies in a circle: each change takes the next. With as many copies as snapshots, the next is one
/// that no snapshot has.
#[derive(Debug)]
pub(super) struct Marks {
    /// How many copies there are, and snapshots at most.
    depth: u8,
    lists: Vec<Vec<u8>>,
    /// The list of each snapshot.
    of: Vec<u8>,
}

/// A snapshot that is written, and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) to: usize,
    pub(super) before: Option<usize>,
}

impl Marks {
    pub(super) fn new(depth: usize) -> Self {
        Marks { depth: depth as u8, lists: Vec::new(), of: vec![NONE; depth] }
    }

    /// Returns the copy that a place had at a snapshot, or [`NONE`].
    pub(super) fn at(&self, snapshot: usize, place: usize) -> u8 {
        self.list(snapshot).get(place).copied().unwrap_or(NONE)
    }

    /// Returns whether any place had a copy at a snapshot.
    pub(super) fn has(&self, snapshot: usize) -> bool {
        self.of[snapshot] != NONE
    }

    /// Lists the copies of a snapshot, by place; the places behind had none.
    pub(super) fn list(&self, snapshot: usize) -> &[u8] {
        self.lists.get(self.of[snapshot] as usize).map_or(&[], Vec::as_slice)
    }

    /// Has a snapshot be as the one before it, unless it was written before.
    pub(super) fn carry(&mut self, Turn { to, before }: Turn) {
        if let Some(before) = before.filter(|_| !self.has(to)) {
            self.of[to] = self.of[before];
        }
    }

    /// Forgets a snapshot.
    pub(super) fn forget(&mut self, snapshot: usize) {
        self.of[snapshot] = NONE;
    }

    /// Takes out the list of a snapshot that is about to change, for so many places; [`put_back`](Marks::put_back) returns it.
    pub(super) fn take(&mut self, to: usize, places: usize) -> Vec<u8> {
        let own = self.of[to];
        let is_own = own != NONE && self.of.iter().filter(|&&of| of == own).count() == 1;
        if !is_own {
            let free = (0..self.depth).find(|list| !self.of.contains(list));
            let free = free.expect("no more snapshots than lists");
            if self.lists.len() <= free as usize {
                self.lists.resize_with(free as usize + 1, Vec::new);
            }
            let mut list = std::mem::take(&mut self.lists[free as usize]);
            list.clear();
            list.extend_from_slice(self.list(to));
            self.of[to] = free;
            self.lists[free as usize] = list;
        }
        let mut list = std::mem::take(&mut self.lists[self.of[to] as usize]);
        if list.len() < places {
            list.resize(places, NONE);
        }
        list
    }

    /// See [`take`](Marks::take).
    pub(super) fn put_back(&mut self, to: usize, list: Vec<u8>) {
        self.lists[self.of[to] as usize] = list;
    }

    /// Returns which copy a place is written to that has `now`, where the snapshot before had `before`: its own, if no other
    /// snapshot has it.
    pub(super) fn next(&self, now: u8, before: u8, has_before: bool) -> u8 {
        match now {
            NONE => 0,
            now if !has_before || before != now => now,
            now => (now + 1) % self.depth,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Saves a tick of places with these changes.
    fn save(marks: &mut Marks, copies: &mut [Vec<u32>], turn: Turn, changes: &[bool], now: &[u32]) {
        marks.carry(turn);
        if !changes.contains(&true) && marks.has(turn.to) {
            return;
        }
        let mut list = marks.take(turn.to, changes.len());
        for (place, _) in changes.iter().enumerate().filter(|(_, is_changed)| **is_changed) {
            let before = turn.before.map_or(NONE, |before| marks.at(before, place));
            list[place] = marks.next(list[place], before, turn.before.is_some());
            copies[list[place] as usize][place] = now[place];
        }
        marks.put_back(turn.to, list);
    }

    proptest! {
        #[test]
        fn each_snapshot_keeps_its_numbers(
            depth in 1..5_usize,
            ticks in proptest::collection::vec((proptest::collection::vec(any::<bool>(), 4), 0..6_usize), 1..60),
        ) {
            let mut marks = Marks::new(depth);
            let mut copies = vec![vec![0; 4]; depth];
            let mut kept: Vec<(usize, Vec<u32>)> = Vec::new();
            let mut now = vec![0_u32; 4];
            for (tick, (changes, back)) in ticks.into_iter().enumerate() {
                let mut changes = if kept.is_empty() { vec![true; 4] } else { changes };
                let is_again = back == 5 && !kept.is_empty();
                if back < kept.len() && back > 0 {
                    // Back by some snapshots.
                    for (snapshot, _) in kept.drain(kept.len() - back..) {
                        marks.forget(snapshot);
                    }
                    match kept.last() {
                        Some((_, then)) => now.clone_from(then),
                        None => changes = vec![true; 4],
                    }
                }
                for (place, _) in changes.iter().enumerate().filter(|(_, changed)| **changed) {
                    now[place] = tick as u32 * 10 + place as u32;
                }
                let to = if is_again || kept.len() == 1 && depth == 1 {
                    kept.pop().unwrap().0
                } else {
                    let newest = kept.last().map(|(to, _)| *to);
                    if kept.len() == depth {
                        marks.forget(kept.remove(0).0);
                    }
                    newest.map_or(0, |newest| (newest + 1) % depth)
                };
                let before = kept.last().map(|(to, _)| *to);
                save(&mut marks, &mut copies, Turn { to, before }, &changes, &now);
                kept.push((to, now.clone()));
                for (snapshot, numbers) in &kept {
                    for place in 0..4 {
                        let mark = marks.at(*snapshot, place);
                        prop_assert_eq!(copies[mark as usize][place], numbers[place]);
                    }
                }
            }
        }
    }
}
