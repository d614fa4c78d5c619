//! Instructions, with operands that are looked up once.

use super::types::{Float, Type};

/// A register that only the executing thread sees: what reads as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    Warps,
    LanesBelow,
    LanesUpTo,
    LaneBit,
    LanesFrom,
    LanesAbove,
    /// Counts the warp instructions of the launch.
    Clock,
    DynamicShared,
    TotalShared,
    Zero,
}

/// The parts of a block's shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// Variables of the module and of functions.
    Common,
    /// Variables of the kernel.
    Kernel,
    /// What the launch adds.
    Dynamic,
}

/// What an instruction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Register(u32),
    Predicate(u32),
    NotPredicate(u32),
    Constant(u64),
    Special(Special),
    /// The offset of a variable in a part of shared memory.
    Shared(Area, u64),
    /// A variable of the module in device memory, by number, and an offset.
    Variable(u32, u64),
    /// An offset in the function's part of local memory.
    Local(u64),
    /// An offset in the function's parameters.
    Parameter(u64),
}

/// What an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Register(u32),
    Predicate(u32),
    Nothing,
}

/// An address: a base and an offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Value,
    pub(crate) offset: u64,
    pub(crate) space: StateSpace,
}

/// The state space that an instruction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateSpace {
    Generic,
    Global,
    Shared,
    Local,
    Parameter,
}

/// How a result is rounded to a floating point number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Min,
    Max,
    Abs,
    Neg,
    Sqrt,
    ReciprocalSqrt,
    Reciprocal,
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
    CopySign,
}

/// Floating point arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloatMode {
    pub(crate) op: FloatOp,
    pub(crate) format: Float,
    pub(crate) rounding: Rounding,
    /// Subnormal numbers count as 0.
    pub(crate) flush: bool,
    /// Results are clamped to 0..1.
    pub(crate) saturate: bool,
    /// `min` and `max` of a NaN are NaN.
    pub(crate) nan: bool,
    /// The hardware's approximation: of `rcp` in double precision, the upper half of the bits.
    pub(crate) approximate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntegerOp {
    Add,
    Sub,
    MulLow,
    MulHigh,
    MulWide,
    MadLow,
    MadHigh,
    MadWide,
    Div,
    Rem,
    Min,
    Max,
    Abs,
    Neg,
    And,
    Or,
    Xor,
    Not,
    LogicalNot,
    ShiftLeft,
    ShiftRight,
    FunnelLeft {
        wrap: bool,
    },
    FunnelRight {
        wrap: bool,
    },
    Table,
    Permute(Permute),
    ExtractField,
    InsertField,
    CountOnes,
    LeadingZeros,
    ReverseBits,
    FindHighest {
        shift: bool,
    },
    AbsoluteDifference,
    Mask,
    /// The sum of products of four bytes each.
    Dot,
}

/// How `prmt` reads its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permute {
    Selector,
    Forward4,
    Backward4,
    Replicate8,
    EdgeClampLeft,
    EdgeClampRight,
    Replicate16,
}

/// Classes of floating point numbers that `testp` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// A conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) to: Type,
    pub(crate) from: Type,
    /// Of a floating point result.
    pub(crate) rounding: Rounding,
    /// To an integer, in either format.
    pub(crate) integral: Option<Rounding>,
    pub(crate) flush: bool,
    pub(crate) saturate: bool,
    pub(crate) relu: bool,
    /// The bits of the register that is written, into which a signed result is extended.
    pub(crate) register_bits: u32,
}

/// What reads up to four values of a lane and writes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compute {
    Copy {
        bits: u32,
    },
    Float(FloatMode),
    Integer {
        op: IntegerOp,
        bits: u32,
        signed: bool,
    },
    Convert(Conversion),
    /// The third value chooses.
    Select {
        bits: u32,
    },
    /// The sign of the third value chooses.
    SelectBySign {
        bits: u32,
        by: Type,
    },
    /// Adds or subtracts the start of a space's window.
    ToGeneric(StateSpace),
    FromGeneric(StateSpace),
    IsInSpace(StateSpace),
    Test {
        class: Class,
        format: Float,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Neither is NaN.
    Ordered,
    /// One is NaN.
    Unordered,
}

/// A comparison; `or_unordered` says what it returns of NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) relation: Relation,
    pub(crate) or_unordered: bool,
    pub(crate) ty: Type,
    pub(crate) flush: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What a barrier computes from a predicate of each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierReduction {
    Count,
    And,
    Or,
}

/// A barrier of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    pub(crate) number: Value,
    /// Absent: all threads of the block.
    pub(crate) threads: Option<Value>,
    /// The warp's threads must come together.
    pub(crate) aligned: bool,
    /// False: the thread says that it came, and goes on.
    pub(crate) waits: bool,
    pub(crate) reduction: Option<(BarrierReduction, Target, Value)>,
}

/// A call; places are offsets and sizes in the caller's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) passed: Vec<u64>,
    pub(crate) returned: Vec<u64>,
}

/// What is added up with carry: the first value and the last, or the product of the first two and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Add,
    Subtract,
    ProductLow,
    ProductHigh { signed: bool },
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Hints, fences and waits that mean nothing where memory is sequentially consistent.
    Nothing,
    /// A fence beyond the block.
    Fence,
    Compute {
        compute: Compute,
        to: Target,
        from: [Value; 4],
    },
    /// Sums with carry, of two values or of a product and a value.
    Carry {
        sum: Sum,
        reads: bool,
        writes: bool,
        bits: u32,
        to: Target,
        from: [Value; 3],
    },
    Pack {
        to: Target,
        from: Vec<Value>,
        bits: u32,
    },
    Unpack {
        to: Vec<Target>,
        from: Value,
        bits: u32,
    },
    Compare {
        comparison: Comparison,
        to: [Target; 2],
        from: [Value; 2],
        combine: Option<(Logic, Value)>,
    },
    Predicate {
        logic: Logic,
        to: Target,
        from: [Value; 2],
    },
    Load {
        address: Address,
        ty: Type,
        to: Vec<(Target, u32)>,
        strong: bool,
    },
    Store {
        address: Address,
        ty: Type,
        from: Vec<Value>,
        strong: bool,
    },
    Atomic {
        address: Address,
        ty: Type,
        op: AtomicOp,
        to: Target,
        from: [Value; 2],
    },
    Copy {
        to: Address,
        from: Address,
        bytes: usize,
        read: Option<Value>,
    },
    CommitCopies,
    /// Waits until at most so many groups of copies are pending; absent: none, uncommitted ones included.
    WaitCopies(Option<usize>),
    Branch(u32),
    BranchIndexed {
        index: Value,
        labels: Vec<u32>,
    },
    Call(Call),
    Return,
    Exit,
    Trap,
    Barrier(Barrier),
    WarpBarrier {
        members: Value,
    },
    Shuffle {
        mode: ShuffleMode,
        to: [Target; 2],
        value: Value,
        by: Value,
        clamp: Value,
        members: Value,
    },
    Vote {
        mode: VoteMode,
        to: Target,
        from: Value,
        members: Value,
    },
    Reduce {
        op: IntegerOp,
        signed: bool,
        to: Target,
        from: Value,
        members: Value,
    },
    Match {
        all: bool,
        bits: u32,
        to: [Target; 2],
        from: Value,
        members: Value,
    },
    Elect {
        to: [Target; 2],
        members: Value,
    },
    ActiveMask {
        to: Target,
    },
}

/// An instruction of a function.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    /// The predicate that must hold, or must not.
    pub(crate) guard: Option<(u32, bool)>,
    pub(crate) op: Op,
    /// Which of the program's opcodes it has.
    pub(crate) opcode: u32,
    pub(crate) line: u32,
}
