/** `add` beside one plain single-threaded loop that reads, hashes twice and writes the same bytes. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB } from '../../src/base/index.ts'
import { NodeProcess } from '../lib/spawn-node.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, spread, type Row } from './lib.ts'

export async function benchAdd ({ directory, bytes, rounds, log }: { directory: string, bytes: number, rounds: number, log: (line: string) => void }): Promise<Row[]> {
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 3 })
  // Once through, so that every contender reads from the page cache.
  for (const name of await readdir(source)) execFileSync('cat', [join(source, name)], { stdio: 'ignore' })
  const figures = { floor: [] as number[], copy: [] as number[], floorInPlace: [] as number[], inPlace: [] as number[] }
  const floor = (target: string[]): number => Number(execFileSync(process.execPath, [new URL('./add-floor.ts', import.meta.url).pathname, source, ...target], { encoding: 'utf8' }))
  const shoal = async (inPlace: boolean): Promise<number> => {
    const dataDirectory = join(directory, 'node')
    const node = await NodeProcess.start({ dataDirectory, swarmKeyHex: randomBytes(32).toString('hex'), settings: { listen: ['/ip4/127.0.0.1/tcp/0'] } })
    const { seconds } = await node.add(source, inPlace)
    await node.stop()
    await rm(dataDirectory, { recursive: true })
    return seconds
  }
  for (let round = 0; round < rounds; round++) {
    const target = join(directory, 'floor')
    await mkdir(target)
    figures.floor.push(bytes / GiB / floor([target]))
    await rm(target, { recursive: true })
    figures.copy.push(bytes / GiB / await shoal(false))
    figures.floorInPlace.push(bytes / GiB / floor([]))
    figures.inPlace.push(bytes / GiB / await shoal(true))
    log(`add round ${round + 1}: floor ${figures.floor.at(-1)?.toFixed(2)}, add ${figures.copy.at(-1)?.toFixed(2)}; without writing ${figures.floorInPlace.at(-1)?.toFixed(2)}, in place ${figures.inPlace.at(-1)?.toFixed(2)} GiB/s`)
  }
  const row = (what: string, ours: number[], loop: number[], name: string): Row => {
    const ratio = median(ours) / median(loop)
    return { what, figure: `${spread(ours)} GiB/s`, beside: `${name} ${spread(loop)} GiB/s`, ratio: ratio.toFixed(2), mustReach: '0.9', reached: ratio >= 0.9 }
  }
  const size = `${(bytes / GiB).toFixed(2)} GiB`
  return [
    row(`add of ${size}`, figures.copy, figures.floor, 'plain loop'),
    row(`add --in-place of ${size}`, figures.inPlace, figures.floorInPlace, 'plain loop, no write')
  ]
}
