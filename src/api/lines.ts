import { ApiError } from '../base/errors.ts'

const NEWLINE = 10

/**
 * The lines of a byte stream, without their ends; the last one may lack it. Empty lines are left out. A line longer
 * than `bytesMax` throws ApiError, so that a stream without ends cannot fill the memory.
 */
export async function * readLines (source: AsyncIterable<Buffer>, bytesMax: number): AsyncGenerator<string> {
  let held: Buffer[] = []
  let heldBytes = 0
  const take = (rest: Buffer): string => {
    const line = held.length === 0 ? rest : Buffer.concat([...held, rest])
    held = []
    heldBytes = 0
    return line.toString()
  }
  for await (const chunk of source) {
    let from = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      check(heldBytes + end - from, bytesMax)
      const line = take(chunk.subarray(from, end))
      from = end + 1
      if (line !== '') yield line
    }
    const rest = chunk.subarray(from)
    if (rest.length === 0) continue
    held.push(rest)
    heldBytes += rest.length
    check(heldBytes, bytesMax)
  }
  if (heldBytes > 0) yield take(Buffer.alloc(0))
}

function check (bytes: number, bytesMax: number): void {
  if (bytes > bytesMax) throw new ApiError(`the daemon sent a line of more than ${bytesMax} bytes`)
}
