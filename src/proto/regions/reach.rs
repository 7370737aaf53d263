//! Regions in the order of their addresses, in a balanced tree whose every node knows how far its subtree reaches.
//!
//! It answers in a logarithm what an ordered map alone cannot: of the regions that start at or before an address, which
//! one ends last? Regions may overlap and nest as they like; nobody can make any call here cost more by choosing
//! them, as the tree is balanced by height. Nodes lie in one vector, so that a copy of the tree is cheap.

use std::cmp::{Ordering, Reverse};

use crate::desc::{Region, RegionKey, Span};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// The root comes with the first node. Index 0 is nobody's: it stands for no node.
    nodes: Vec<Node>,
    root: Link,
    free: Vec<Link>,
}

/// A node's place in the vector; 0 for none.
type Link = u32;

const NONE: Link = 0;

#[derive(Clone, Copy, Debug)]
struct Node {
    region: Region,
    /// One past the last byte of any region below, this one included.
    reach: u64,
    height: u8,
    left: Link,
    right: Link,
}

impl Reach {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.root == NONE
    }

    /// Adds a region; not one that is there.
    pub fn insert(&mut self, region: Region) {
        let node = Node { region, reach: end_of(&region), height: 1, left: NONE, right: NONE };
        if self.nodes.is_empty() {
            self.nodes.push(Node { reach: 0, height: 0, ..node }); // nobody's
        }
        let link = match self.free.pop() {
            Some(link) => {
                self.nodes[link as usize] = node;
                link
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Link // a table is bounded far below 2^32 regions
            }
        };
        self.root = self.inserted(self.root, link);
    }

    /// Takes a region out, if it is there.
    pub fn remove(&mut self, region: &Region) {
        self.root = self.removed(self.root, &place(region));
    }

    /// Of the regions that start at or before `addr`, the one that ends last; the first of several.
    pub fn farthest(&self, addr: u64) -> Option<&Region> {
        let (mut at, mut best, mut is_subtree) = (self.root, NONE, false);
        let mut reach = 0;
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.region.span.addr > addr {
                at = node.left;
                continue;
            }
            let left = self.nodes[node.left as usize].reach;
            if left > reach {
                (best, is_subtree, reach) = (node.left, true, left);
            }
            if end_of(&node.region) > reach {
                (best, is_subtree, reach) = (at, false, end_of(&node.region));
            }
            at = node.right;
        }
        match is_subtree {
            true => self.first_beyond(best, reach - 1),
            false => (best != NONE).then(|| &self.nodes[best as usize].region),
        }
    }

    /// The first region that touches a span.
    pub fn touching(&self, span: Span) -> Option<&Region> {
        let region = self.first_beyond(self.root, span.addr)?;
        (region.span.addr < span.addr.saturating_add(span.len)).then_some(region)
    }

    /// The first region below that ends beyond `addr`.
    fn first_beyond(&self, mut at: Link, addr: u64) -> Option<&Region> {
        while at != NONE {
            let node = &self.nodes[at as usize];
            if self.nodes[node.left as usize].reach > addr {
                at = node.left;
            } else if end_of(&node.region) > addr {
                return Some(&node.region);
            } else {
                at = node.right;
            }
        }
        None
    }

    /// The subtree `at` with a new node in it.
    fn inserted(&mut self, at: Link, new: Link) -> Link {
        if at == NONE {
            return new;
        }
        let Node { left, right, .. } = self.nodes[at as usize];
        let (here, there) = (place(&self.nodes[at as usize].region), place(&self.nodes[new as usize].region));
        match there < here {
            true => self.nodes[at as usize].left = self.inserted(left, new),
            false => self.nodes[at as usize].right = self.inserted(right, new),
        }
        self.balanced(at)
    }

    /// The subtree `at` without a place.
    fn removed(&mut self, at: Link, gone: &Place) -> Link {
        if at == NONE {
            return NONE;
        }
        let Node { left, right, .. } = self.nodes[at as usize];
        match gone.cmp(&place(&self.nodes[at as usize].region)) {
            Ordering::Less => self.nodes[at as usize].left = self.removed(left, gone),
            Ordering::Greater => self.nodes[at as usize].right = self.removed(right, gone),
            Ordering::Equal => {
                self.free.push(at);
                if right == NONE {
                    return left;
                }
                let (rest, next) = self.without_first(right);
                (self.nodes[next as usize].left, self.nodes[next as usize].right) = (left, rest);
                return self.balanced(next);
            }
        }
        self.balanced(at)
    }

    /// The subtree `at`, which has a node, without its first one; and that one.
    fn without_first(&mut self, at: Link) -> (Link, Link) {
        let Node { left, right, .. } = self.nodes[at as usize];
        if left == NONE {
            return (right, at);
        }
        let (rest, first) = self.without_first(left);
        self.nodes[at as usize].left = rest;
        (self.balanced(at), first)
    }

    /// The subtree `at`, one side of which has grown or shrunk by one, balanced again.
    fn balanced(&mut self, at: Link) -> Link {
        let Node { left, right, .. } = self.nodes[at as usize];
        match self.lean(at) {
            ..-1 => {
                if self.lean(left) > 0 {
                    self.nodes[at as usize].left = self.turned_left(left);
                }
                self.turned_right(at)
            }
            2.. => {
                if self.lean(right) < 0 {
                    self.nodes[at as usize].right = self.turned_right(right);
                }
                self.turned_left(at)
            }
            _ => {
                self.sum_up(at);
                at
            }
        }
    }

    /// By how much the right side of a node is higher than its left one.
    fn lean(&self, at: Link) -> i16 {
        let Node { left, right, .. } = self.nodes[at as usize];
        i16::from(self.nodes[right as usize].height) - i16::from(self.nodes[left as usize].height)
    }

    /// Puts the right child in the place of its parent.
    fn turned_left(&mut self, at: Link) -> Link {
        let up = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[up as usize].left;
        self.nodes[up as usize].left = at;
        self.sum_up(at);
        self.sum_up(up);
        up
    }

    /// Puts the left child in the place of its parent.
    fn turned_right(&mut self, at: Link) -> Link {
        let up = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[up as usize].right;
        self.nodes[up as usize].right = at;
        self.sum_up(at);
        self.sum_up(up);
        up
    }

    /// Height and reach of a node, from what is below it.
    fn sum_up(&mut self, at: Link) {
        let Node { region, left, right, .. } = self.nodes[at as usize];
        let (left, right) = (self.nodes[left as usize], self.nodes[right as usize]);
        let node = &mut self.nodes[at as usize];
        node.height = 1 + left.height.max(right.height);
        node.reach = end_of(&region).max(left.reach).max(right.reach);
    }
}

/// Orders regions by address, the longest first where addresses are equal.
type Place = (u64, Reverse<u64>, RegionKey);

fn place(region: &Region) -> Place {
    (region.span.addr, Reverse(region.span.len), region.key)
}

/// One past the last byte; the table holds no region that wraps.
pub(super) fn end_of(region: &Region) -> u64 {
    region.span.addr + region.span.len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::MemoryKind;
    use proptest::prelude::*;

    fn region(key: u32, addr: u64, len: u64) -> Region {
        Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span: Span { addr, len } }
    }

    /// Regions in order; panics where the tree is out of order, out of balance, or reaches elsewhere.
    fn walk(tree: &Reach, at: Link, found: &mut Vec<Region>) -> (u8, u64) {
        if at == NONE {
            return (0, 0);
        }
        let node = tree.nodes[at as usize];
        let left = walk(tree, node.left, found);
        found.push(node.region);
        let right = walk(tree, node.right, found);
        assert!(left.0.abs_diff(right.0) <= 1, "out of balance: {} and {}", left.0, right.0);
        let sums = (1 + left.0.max(right.0), end_of(&node.region).max(left.1).max(right.1));
        assert_eq!((node.height, node.reach), sums);
        sums
    }

    /// Steps of a case.
    const MANY: usize = if cfg!(miri) { 20 } else { 200 };

    proptest! {
        #[test]
        fn it_answers_as_a_list_would_and_stays_balanced(
            steps in prop::collection::vec((0_u32..64, 0_u64..40, 1_u64..40), 1..MANY),
        ) {
            let mut tree = Reach::default();
            let mut list: Vec<Region> = Vec::new();
            for (key, addr, len) in steps {
                match list.iter().position(|known| known.key.0 == key) {
                    Some(at) => tree.remove(&list.remove(at)),
                    None => {
                        tree.insert(region(key, addr, len));
                        list.push(region(key, addr, len));
                    }
                }
                list.sort_unstable_by_key(place);
                let mut found = Vec::new();
                walk(&tree, tree.root, &mut found);
                prop_assert_eq!(&found, &list);
                prop_assert_eq!(tree.is_empty(), list.is_empty());
                for addr in 0..85 {
                    let before = list.iter().filter(|known| known.span.addr <= addr);
                    let farthest = before.rev().max_by_key(|known| end_of(known));
                    prop_assert_eq!(tree.farthest(addr), farthest);
                    let touches = |known: &&Region| known.span.addr < addr + 3 && end_of(known) > addr;
                    let touching = list.iter().find(touches);
                    prop_assert_eq!(tree.touching(Span { addr, len: 3 }), touching);
                }
            }
        }
    }
}
