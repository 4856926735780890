//! How work is shared out: blocks fixed by shape, never by the number of threads.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::LazyLock;

/// Values a block: large enough to hide what a task costs, small enough to stay in the second cache.
pub(super) const BLOCK: usize = 16 * 1024;

static ARCH: LazyLock<pulp::Arch> = LazyLock::new(|| match forced() {
    Some("portable") => pulp::Arch::Scalar,
    #[cfg(target_arch = "x86_64")]
    Some("avx2") => pulp::x86::V3::try_new().map_or_else(pulp::Arch::new, pulp::Arch::V3),
    _ => pulp::Arch::new(),
});

/// What the environment variable RETUNE_KERNELS asks for instead of the best that the machine has: `portable`, `avx2`, or
/// `avx512`, which is without AVX512_BF16. Anything else, or what the machine lacks, is no wish. For tests: each kind of
/// processor has its own kernels.
pub(super) fn forced() -> Option<&'static str> {
    static WISH: LazyLock<Option<String>> = LazyLock::new(|| {
        let wish = std::env::var("RETUNE_KERNELS").ok()?;
        ["portable", "avx2", "avx512"].contains(&wish.as_str()).then_some(wish)
    });
    WISH.as_deref()
}

/// Runs `work` compiled for the widest vectors that this machine has. Loops in `work`, and in the
/// `#[inline(always)]` functions that it calls, are vectorised by the compiler. `work` must itself be `#[inline(always)]`:
/// a large closure would else be compiled on its own, for the least of all machines.
#[inline]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    ARCH.dispatch(work)
}

/// Runs `work` with the vectors of this machine's instruction set as types.
#[inline]
pub(crate) fn dispatch<W: pulp::WithSimd>(work: W) -> W::Output {
    ARCH.dispatch(work)
}

/// Rows a block, for rows of `columns` values.
pub(super) fn rows_per_block(columns: usize) -> usize {
    (BLOCK / columns.max(1)).max(1)
}

/// Values that tasks write at places that no two of them share.
pub(super) struct Disjoint<'a, T = f32> {
    start: *mut T,
    len: usize,
    values: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "each task writes its own place only: see `Disjoint::slice`")]
// SAFETY: the pointer comes from a unique borrow that lives as long as `Disjoint`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
#[expect(unsafe_code, reason = "each task writes its own place only: see `Disjoint::slice`")]
// SAFETY: shared access hands out slices only through `slice`, whose callers keep them apart.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(values: &'a mut [T]) -> Self {
        Disjoint { start: values.as_mut_ptr(), len: values.len(), values: PhantomData }
    }

    /// Where `range` begins, for products that write some columns of it. Making the pointer is safe; writing through
    /// it is not.
    pub(super) fn pointer(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "a task's range lies outside its output");
        self.start.wrapping_add(range.start)
    }

    /// The values at `range`.
    ///
    /// # Safety
    /// No other task may read or write them while the slice lives.
    #[expect(
        unsafe_code,
        reason = "columns of a matrix are shared out between tasks, which `chunks_mut` cannot do"
    )]
    #[expect(clippy::mut_from_ref, reason = "that is the purpose: the caller keeps the ranges apart")]
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        let length = range.len();
        // SAFETY: in bounds by the assertion of `pointer`; the caller keeps the ranges apart.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(range), length) }
    }
}
