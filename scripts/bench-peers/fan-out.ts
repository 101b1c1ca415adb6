import { mkdir } from 'node:fs/promises'
import { GiB, MiB } from '../../src/base/index.ts'
import { benchFanOut } from '../bench/fan-out.ts'
import type { Row } from '../bench/lib.ts'

/** What is promised of 16 loaders: all done within this many times size / R, and so many copies sent by the seeder. */
const TIME_MAX = 1.10
const COPIES_MAX = 1.2

/** The fan-out of `npm run bench` with 16 loaders and the 2 GiB of the other rows, held to its own promises. Each round takes five minutes and writes 32 GiB. */
export async function benchFanOutOf16 ({ directory, rounds, log }: { directory: string, rounds: number, log: (line: string) => void }): Promise<Row[]> {
  await mkdir(directory, { recursive: true })
  const rows = await benchFanOut({ directory, bytes: 2 * GiB, linkBytesPerSecond: 8 * MiB, loaders: 16, rounds, log })
  const promised: Array<[string, (row: Row) => boolean]> = [
    [`<= ${TIME_MAX}`, row => Number(row.ratio) <= TIME_MAX],
    [`<= ${COPIES_MAX}`, row => Number.parseFloat(row.figure) <= COPIES_MAX]
  ]
  return rows.map((row, i) => {
    const own = promised[i]
    return own === undefined ? row : { ...row, mustReach: own[0], reached: own[1](row) }
  })
}
