/**
 * Zero, for a sum that will outgrow 31 bits or become a fraction. V8 keeps a field that begins as 0 as a small integer; once it is
 * something else, all compiled code that knew the class is thrown away, in the middle of a load (at its second GiB, say). -0 is no
 * small integer, and behaves like 0 in sums; whoever shows it to others adds 0.
 */
export const DOUBLE_ZERO = -0
