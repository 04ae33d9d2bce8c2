//! What glibc exports: its symbols, and the descriptors of its structures that libthread_db reads.

use std::ffi::{CString, c_void};

/// The address of a symbol of glibc's, exported or private.
pub(super) fn symbol<T>(name: &str) -> Result<*mut T, String> {
    let name_c = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name_c.as_ptr()) };
    if address.is_null() {
        return Err(format!(
            "there is no symbol {name} (a static program, or not glibc)"
        ));
    }
    Ok(address.cast())
}

/// A function of glibc's.
///
/// # Safety
///
/// `F` must be the function's type.
pub(super) unsafe fn function<F: Copy>(name: &str) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let address = symbol::<c_void>(name)?;
    // SAFETY: the caller vouches for the type, and the size is a pointer's.
    Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

/// The offset of a field, from libthread_db's descriptor `{bits, number of elements, offset}`.
pub(super) fn descriptor(field: &str) -> Result<usize, String> {
    let descriptor = symbol::<[u32; 3]>(&format!("_thread_db_{field}"))?;
    // SAFETY: libthread_db reads the same three words through the same symbol.
    Ok(unsafe { descriptor.read()[2] } as usize)
}

/// The size of a structure, from libthread_db's descriptor.
pub(super) fn descriptor_size(structure: &str) -> Result<usize, String> {
    let size = symbol::<u32>(&format!("_thread_db_sizeof_{structure}"))?;
    // SAFETY: as in `descriptor`.
    Ok(unsafe { size.read() } as usize)
}
