use crate::backend::{self, Backend};

/// Where a tensor lives. A runtime value: model, method and trainer code never ask which one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor, kernels chosen at run time by what it can do.
    Cpu,
    /// Shapes and byte counts without data: the same code, run to learn what it would cost.
    Meta,
}

impl Device {
    /// The kernels of this device.
    pub fn backend(self) -> &'static dyn Backend {
        match self {
            Device::Cpu if backend::profile::is_running() => &backend::profile::PROFILED,
            Device::Cpu => &backend::cpu::CPU,
            Device::Meta => &backend::meta::META,
        }
    }
}
