//! What can go wrong: in the text, before a launch, and while a kernel runs.

use std::fmt;

use thiserror::Error;

/// A text that is not PTX, or that has more than this interpreter runs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {kind}")]
pub struct ParseError {
    /// The line of the text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
}

/// What is wrong with a line of PTX.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// Something else was expected here.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What would be right.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// The text ends too early.
    #[error("unexpected end of the text")]
    End,
    /// A name that was not declared.
    #[error("unknown name `{0}`")]
    UnknownName(String),
    /// A number that cannot be read.
    #[error("`{0}` is not a number")]
    Number(String),
    /// An instruction that this interpreter does not run, or not with these modifiers or types.
    #[error("`{0}` is not supported")]
    Unsupported(String),
    /// An instruction with operands of a wrong kind or number.
    #[error("wrong operands of `{0}`")]
    Operands(String),
    /// More registers or memory than any device has.
    #[error("{what}: {size}, at most {most}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        size: u64,
        /// How large it may be.
        most: u64,
    },
}

/// Why a host's access to device memory failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The bytes are not all within one allocation.
    #[error("{bytes} bytes at {address:#x} are not within an allocation")]
    OutOfBounds {
        /// The first byte.
        address: u64,
        /// How many bytes.
        bytes: usize,
    },
    /// No allocation begins there.
    #[error("no allocation begins at {0:#x}")]
    NotAllocated(u64),
}

/// Why a launch failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program has no kernel of that name.
    #[error("no kernel `{0}`")]
    NoKernel(String),
    /// Too few or too many arguments.
    #[error("`{kernel}` takes {expected} arguments, got {got}")]
    ArgumentCount {
        /// The kernel.
        kernel: String,
        /// How many it declares.
        expected: usize,
        /// How many were passed.
        got: usize,
    },
    /// An argument of another size than the parameter.
    #[error("argument {index} of `{kernel}` has {expected} bytes, got {got}")]
    ArgumentSize {
        /// The kernel.
        kernel: String,
        /// Which argument, from 0.
        index: usize,
        /// The bytes that the parameter has.
        expected: usize,
        /// The bytes that were passed.
        got: usize,
    },
    /// A block without threads, or with more than the kernel or a device allows.
    #[error("`{kernel}` runs in blocks of 1 to {most} threads, got {got}")]
    Threads {
        /// The kernel.
        kernel: String,
        /// The most threads.
        most: u32,
        /// The threads that were asked for.
        got: u64,
    },
    /// More shared memory than a block can have.
    #[error("`{kernel}` needs {got} bytes of shared memory, a block has at most {most}")]
    SharedMemory {
        /// The kernel.
        kernel: String,
        /// The most bytes.
        most: usize,
        /// Static and dynamic bytes.
        got: usize,
    },
    /// The kernel did something wrong.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

impl LaunchError {
    /// Returns what the kernel did wrong, if it ran.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            LaunchError::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

/// A thread of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its block's place in the grid.
    pub block: [u32; 3],
    /// Its place in the block.
    pub thread: [u32; 3],
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], [bx, by, bz]) = (self.thread, self.block);
        write!(f, "thread ({x}, {y}, {z}) of block ({bx}, {by}, {bz})")
    }
}

/// A mistake of a kernel: the launch ended there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{kernel}, line {line}, `{instruction}`: {thread}: {kind}")]
pub struct Fault {
    /// The kernel that ran.
    pub kernel: String,
    /// The line of the PTX text, from 1.
    pub line: u32,
    /// The instruction, without its operands.
    pub instruction: String,
    /// The thread that is named; of a fault of several, the first.
    pub thread: Thread,
    /// What it did.
    pub kind: FaultKind,
}

/// The state space of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory, constants included.
    Global,
    /// Memory of a block.
    Shared,
    /// Memory of a thread.
    Local,
    /// Arguments of kernels and functions.
    Parameter,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Parameter => "parameter",
        })
    }
}

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// What a kernel can do wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access beyond an allocation.
    OutOfBounds {
        /// Where the address points to.
        space: Space,
        /// The address, in its space.
        address: u64,
        /// The bytes of the access.
        bytes: usize,
    },
    /// An address that is no multiple of the bytes of the access.
    Misaligned {
        /// Where the address points to.
        space: Space,
        /// The address, in its space.
        address: u64,
        /// The bytes of the access.
        bytes: usize,
    },
    /// A read of memory that nobody wrote.
    Unwritten {
        /// Where the address points to.
        space: Space,
        /// The address, in its space.
        address: u64,
        /// The bytes of the access.
        bytes: usize,
    },
    /// Two threads access the same bytes, one of them writes, and nothing orders the two.
    Race {
        /// Where the address points to.
        space: Space,
        /// The address, in its space.
        address: u64,
        /// What the named thread does.
        access: Access,
        /// What the other thread did before.
        earlier: Access,
        /// The other thread; absent where several did it.
        other: Option<Thread>,
    },
    /// Threads of one warp wait at different barriers, or some ended before an aligned one.
    Divergence {
        /// The barrier's number.
        barrier: u32,
    },
    /// Threads wait at a barrier that the others never reach.
    Barrier {
        /// The barrier's number.
        barrier: u32,
        /// How many threads wait.
        waiting: u32,
        /// How many threads it waits for.
        expected: u32,
    },
    /// A barrier that does not exist, or a number of threads that it cannot wait for.
    BarrierOperand {
        /// The barrier's number.
        barrier: u64,
        /// How many threads it would wait for.
        threads: u64,
    },
    /// Lanes of a warp do not all reach an instruction that they run together.
    Convergence {
        /// The lanes that the instruction names, a bit each.
        expected: u32,
        /// The lanes that reached it, a bit each.
        reached: u32,
    },
    /// A shuffle reads from a lane that does not take part.
    InactiveLane {
        /// The lane that is read.
        lane: u32,
    },
    /// The kernel runs `trap`.
    Trap,
    /// A call of a function without a body.
    NoBody,
    /// Calls are nested too deeply.
    StackOverflow,
    /// The launch ran as many instructions as [`Options::limit`](crate::Options::limit) allows.
    InstructionLimit,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = |access: &Access| match access {
            Access::Read => "read",
            Access::Write => "write",
        };
        match self {
            FaultKind::OutOfBounds { space, address, bytes } => {
                write!(f, "access out of bounds: {bytes} bytes of {space} memory at {address:#x}")
            }
            FaultKind::Misaligned { space, address, bytes } => {
                write!(f, "misaligned access: {bytes} bytes of {space} memory at {address:#x}")
            }
            FaultKind::Unwritten { space, address, bytes } => {
                write!(
                    f,
                    "read of unwritten memory: {bytes} bytes of {space} memory at {address:#x}"
                )
            }
            FaultKind::Race { space, address, access: now, earlier, other } => {
                let (now, earlier) = (access(now), access(earlier));
                write!(f, "race: {now} of {space} memory at {address:#x} after a {earlier} by ")?;
                match other {
                    Some(other) => write!(f, "{other}")?,
                    None => write!(f, "several threads")?,
                }
                write!(f, ", with no barrier between them")
            }
            FaultKind::Divergence { barrier } => {
                write!(f, "barrier {barrier} is not reached by all threads of the warp together")
            }
            FaultKind::Barrier { barrier, waiting, expected } => write!(
                f,
                "{waiting} threads wait at barrier {barrier} for {expected}; the others never reach it"
            ),
            FaultKind::BarrierOperand { barrier, threads } => {
                write!(f, "there is no barrier {barrier} for {threads} threads")
            }
            FaultKind::Convergence { expected, reached } => write!(
                f,
                "lanes {expected:#010x} of the warp were expected, only {reached:#010x} are here"
            ),
            FaultKind::InactiveLane { lane } => {
                write!(f, "reads from lane {lane}, which does not take part")
            }
            FaultKind::Trap => f.write_str("trap"),
            FaultKind::NoBody => f.write_str("the function has no body"),
            FaultKind::StackOverflow => f.write_str("calls are nested too deeply"),
            FaultKind::InstructionLimit => f.write_str("the limit of instructions is reached"),
        }
    }
}
