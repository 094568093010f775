//! The pages of one cache, by id.

use roofline_kernels::{PageRef, SharedBytes, Team};

/// Pages held, those of them that no lane uses, and ids without a page.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pages: Vec<Option<SharedBytes>>, // (ids)
    sealed: Vec<bool>,               // (ids)
    free: Vec<u32>,
    vacant: Vec<u32>,
}

/// A fork shares the pages in use. Free pages are not shared: each side would have to copy them on its first write.
impl Clone for Pool {
    fn clone(&self) -> Self {
        let (pages, sealed) = (self.pages.clone(), self.sealed.clone());
        let mut clone = Pool { pages, sealed, free: Vec::new(), vacant: self.vacant.clone() };
        for &id in &self.free {
            clone.pages[id as usize] = None;
            clone.vacant.push(id);
        }
        clone
    }
}

impl Pool {
    /// Pages held.
    pub fn held(&self) -> usize {
        self.pages.len() - self.vacant.len()
    }

    /// Pages among them that are sealed.
    pub fn sealed(&self) -> usize {
        self.sealed.iter().filter(|sealed| **sealed).count()
    }

    /// Pages held that no lane uses.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Allocates `count` pages, or none and `false`.
    pub fn grow(&mut self, team: &Team, count: usize, page_bytes: usize) -> bool {
        let Some(fresh) = SharedBytes::zeroed_many(team, count, page_bytes) else { return false };
        for page in fresh {
            let id = self.vacant.pop().unwrap_or_else(|| {
                self.pages.push(None);
                self.sealed.push(false);
                (self.pages.len() - 1) as u32
            });
            self.pages[id as usize] = Some(page);
            self.free.push(id);
        }
        // Room for every id, so that giving pages back allocates nothing.
        self.free.reserve(self.pages.len() - self.free.len());
        self.vacant.reserve(self.pages.len() - self.vacant.len());
        true
    }

    /// A page for a lane.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// A lane is done with the page: keep it for later, or let its memory go, as that of a sealed page always does.
    pub fn give_back(&mut self, id: u32, keep: bool) {
        let was_sealed = std::mem::take(&mut self.sealed[id as usize]);
        if keep && !was_sealed {
            self.free.push(id);
        } else {
            self.pages[id as usize] = None;
            self.vacant.push(id);
        }
    }

    /// Copies the page if a fork shares it; `false` when there is no memory for that.
    pub fn own(&mut self, id: u32) -> bool {
        let Some(page) = &mut self.pages[id as usize] else { return false };
        if page.get_mut().is_some() {
            return true;
        }
        let Some(mut copy) = SharedBytes::zeroed(page.as_slice().len()) else { return false };
        let Some(bytes) = copy.get_mut() else { return false };
        bytes.copy_from_slice(page.as_slice());
        *page = copy;
        true
    }

    /// The bytes of a page a lane uses.
    pub fn page(&self, id: u32) -> &[u8] {
        self.pages[id as usize].as_ref().map_or(&[], |page| page.as_slice())
    }

    /// A page a lane uses, as it is read.
    pub fn read(&self, id: u32) -> PageRef<'_> {
        let bytes = self.page(id);
        if self.sealed[id as usize] { PageRef::Sealed(bytes) } else { PageRef::Hot(bytes) }
    }

    /// Puts the coded form of a page in its place. Forks that share the page keep what they have.
    pub fn seal(&mut self, id: u32, sealed: SharedBytes) {
        self.pages[id as usize] = Some(sealed);
        self.sealed[id as usize] = true;
    }

    /// Lets `f` read one page and write another, which is this cache's own.
    pub fn with_two(&mut self, source: u32, target: u32, f: impl FnOnce(&[u8], &mut [u8])) {
        if let Some(source) = self.pages[source as usize].clone() {
            f(source.as_slice(), self.page_mut(target));
        }
    }

    /// Hands out a page a lane uses, to be written to on another thread and [put back](Pool::put_back).
    pub fn lend(&mut self, id: u32) -> Option<SharedBytes> {
        self.pages[id as usize].take()
    }

    /// Takes back a page that was lent.
    pub fn put_back(&mut self, id: u32, page: SharedBytes) {
        self.pages[id as usize] = Some(page);
    }

    /// The same as [`Pool::page`], to write to: the page is this cache's own after [`Pool::own`].
    pub fn page_mut(&mut self, id: u32) -> &mut [u8] {
        self.pages[id as usize].as_mut().and_then(SharedBytes::get_mut).unwrap_or_default()
    }
}
