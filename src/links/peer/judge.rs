//! Which of two links with one node stays.
//!
//! Owns the rule alone; time and sockets are elsewhere. Either node may open a link; one that has a link, or has sent its hello, opens no
//! other. So two can only meet if both nodes sent a hello before the other's came, or if one has lost a link that the other still
//! believes in. N-1.

/// A hello that came, and what there is with its sender.
pub(super) struct Case {
    /// The sender has the lesser id.
    pub they_are_less: bool,
    /// Our own hello is on its way to it.
    pub we_have_asked: bool,
    /// The link that there is.
    pub live: Option<Live>,
    /// The sender's life.
    pub life: u64,
    /// Links with us that it has had in it.
    pub links: u64,
}

/// A link that this end believes in.
#[derive(Clone, Copy)]
pub(super) struct Live {
    /// This end opened it.
    pub by_us: bool,
    /// The other's life.
    pub life: u64,
    /// The other's count of links, this one among them.
    pub links: u64,
}

impl Case {
    /// Whether the one that comes is taken, and replaces what there is.
    pub(super) fn is_taken(&self) -> bool {
        match self.live {
            // Both have asked: the one that the lesser id opens stays.
            None => !self.we_have_asked || self.they_are_less,
            // Who has a link does not ask: it has lost the one that it opened.
            Some(live) if !live.by_us => true,
            // It asked before it took ours, and will find that out; or it has taken and lost it, or is another life.
            Some(live) => self.life != live.life || self.links >= live.links,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One end of a pair, as the hub keeps it.
    #[derive(Default)]
    struct End {
        life: u64,
        links: u64,
        /// The connection on which our hello is out.
        asked: Option<usize>,
        /// The link: its connection, and what the rule knows of it.
        live: Option<(usize, Live)>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Msg {
        Hello { life: u64, links: u64 },
        Yes { life: u64, links: u64 },
        No,
        Closed,
    }

    /// Two ends, and connections whose two directions carry messages in order.
    struct World {
        ends: [End; 2],
        /// By connection: who opened it, and what is on its way to each end.
        wires: Vec<(usize, [Vec<Msg>; 2])>,
    }

    impl World {
        fn send(&mut self, wire: usize, to: usize, m: Msg) {
            self.wires[wire].1[to].push(m);
        }
        fn ask(&mut self, me: usize) {
            let e = &mut self.ends[me];
            if e.asked.is_some() || e.live.is_some() {
                return;
            }
            let wire = self.wires.len();
            e.asked = Some(wire);
            let hello = Msg::Hello { life: e.life, links: e.links };
            self.wires.push((me, Default::default()));
            self.send(wire, 1 - me, hello);
        }
        fn take(&mut self, me: usize, wire: usize, life: u64, links: u64, by_us: bool) {
            let e = &mut self.ends[me];
            e.links += 1;
            if let Some((old, _)) = e.live.replace((wire, Live { by_us, life, links })) {
                self.send(old, 1 - me, Msg::Closed);
            }
        }
        /// One message arrives.
        fn step(&mut self, wire: usize, me: usize) {
            if self.wires[wire].1[me].is_empty() {
                return;
            }
            let opener = self.wires[wire].0;
            let m = self.wires[wire].1[me].remove(0);
            let e = &mut self.ends[me];
            match m {
                Msg::Hello { life, links } => {
                    let case = Case {
                        they_are_less: me == 1,
                        we_have_asked: e.asked.is_some(),
                        live: e.live.map(|l| l.1),
                        life,
                        links,
                    };
                    if case.is_taken() {
                        self.take(me, wire, life, links + 1, false);
                        let (life, links) = (self.ends[me].life, self.ends[me].links);
                        self.send(wire, 1 - me, Msg::Yes { life, links });
                    } else {
                        self.send(wire, 1 - me, Msg::No);
                    }
                }
                Msg::Yes { life, links } => {
                    assert_eq!(opener, me);
                    if e.asked != Some(wire) {
                        return self.send(wire, 1 - me, Msg::Closed);
                    }
                    e.asked = None;
                    if e.live.is_some() {
                        return self.send(wire, 1 - me, Msg::Closed);
                    }
                    self.take(me, wire, life, links, true);
                }
                Msg::No => {
                    if e.asked == Some(wire) {
                        e.asked = None;
                    }
                }
                Msg::Closed => {
                    if e.asked == Some(wire) {
                        e.asked = None;
                    }
                    if e.live.is_some_and(|l| l.0 == wire) {
                        e.live = None;
                    }
                }
            }
        }
        /// An end loses whatever it has, and the other hears of it in time.
        fn lose(&mut self, me: usize) {
            let e = &mut self.ends[me];
            let wires: Vec<usize> = e.asked.take().into_iter().chain(e.live.take().map(|l| l.0)).collect();
            for w in wires {
                self.wires[w].1[me].clear();
                self.send(w, 1 - me, Msg::Closed);
            }
        }
        fn settle(&mut self) {
            for _ in 0..2000 {
                for w in 0..self.wires.len() {
                    (0..2).for_each(|me| self.step(w, me));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]
        /// N-1: whatever crosses, breaks and restarts, once all is delivered both ends have the same link, or none and may ask again.
        #[test]
        fn n1_both_ends_keep_the_same_link(steps in proptest::collection::vec((0u8..10, 0usize..8), 0..60)) {
            let mut w = World { ends: Default::default(), wires: Vec::new() };
            (w.ends[0].life, w.ends[1].life) = (10, 20);
            for (what, n) in steps {
                match what {
                    0 | 1 => w.ask(n % 2),
                    2 => w.lose(n % 2),
                    3 => {
                        w.lose(n % 2);
                        let e = &mut w.ends[n % 2];
                        (e.life, e.links) = (e.life + 1, 0);
                    }
                    _ => {
                        let busy: Vec<_> = (0..w.wires.len())
                            .flat_map(|i| [(i, 0), (i, 1)])
                            .filter(|(i, me)| !w.wires[*i].1[*me].is_empty())
                            .collect();
                        if let Some((i, me)) = busy.get(n % busy.len().max(1)) {
                            w.step(*i, *me);
                        }
                    }
                }
            }
            w.settle();
            for _ in 0..4 {
                w.ask(0);
                w.ask(1);
                w.settle();
            }
            let has = |e: &End| e.live.map(|l| l.0);
            prop_assert!(has(&w.ends[0]).is_some(), "N-1: they come together");
            prop_assert_eq!(has(&w.ends[0]), has(&w.ends[1]), "N-1");
        }
    }
}
