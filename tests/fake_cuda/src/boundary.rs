//! What C hands over, as types. Whoever calls an exported function promises, as `cuda.h` has it, that a pointer is null
//! or leads to as much as the function's documentation says; only calls from C make these.

use std::ffi::{CStr, c_char};

use crate::code::{Code, Outcome};

/// Where a caller wants a value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Hands the value over; null is an invalid argument.
    pub fn set(self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by the promise of this module it is writable for one value.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Hands the value over to who wants it: null does not.
    pub fn set_if_wanted(self, value: T) {
        let _ = self.set(value);
    }

    /// The same place for a value of another type, where the type depends on another argument.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl Out<u32> {
    /// Hands the value over, and takes what was there.
    pub fn exchange(self, value: u32) -> Outcome<u32> {
        let old = In(self.0.cast_const()).value()?;
        self.set(value)?;
        Ok(old)
    }
}

impl Out<c_char> {
    /// Writes as much of the text as `len` bytes hold, with a NUL at the end.
    pub fn set_text(self, text: &str, len: i32) -> Outcome {
        let room = usize::try_from(len).ok().filter(|room| *room > 0).ok_or(Code::INVALID_VALUE)?;
        let text = &text.as_bytes()[..text.len().min(room - 1)];
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by the promise of this module it is writable for `len` bytes, of which `text` and a NUL
        // are at most as many.
        unsafe {
            self.0.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
            self.0.add(text.len()).write(0);
        }
        Ok(())
    }
}

/// Where a caller has put one value, or several.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// The value; null is an invalid argument.
    pub fn value(self) -> Outcome<T> {
        self.at(0)
    }

    /// The value at `index` of those that the caller has counted.
    pub fn at(self, index: usize) -> Outcome<T> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by the promise of this module it is readable, and `index` is below what the caller gave as
        // the count.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

impl In<u8> {
    /// A copy of `len` bytes from here.
    pub fn bytes(self, len: usize) -> Outcome<Vec<u8>> {
        (0..len).map(|index| self.at(index)).collect()
    }
}

impl<T> In<T> {
    /// The same place as values of another type.
    pub fn cast<U>(self) -> In<U> {
        In(self.0.cast())
    }

    /// The address itself.
    pub fn address(self) -> usize {
        self.0.addr()
    }
}

/// A text of the caller's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// The text, where it is one.
    pub fn as_str(&self) -> Outcome<&str> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, so by the promise of this module it is a text with a NUL at its end, there for the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::INVALID_VALUE)
    }
}
