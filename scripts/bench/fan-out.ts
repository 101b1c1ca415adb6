/** 8 nodes load from 1 at once, each link capped by a token bucket: how near to size / R the last one is done. */
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import { NodeProcess } from '../lib/spawn-node.ts'
import { writeSyntheticModel } from '../lib/synthetic-model.ts'
import { median, spread, type Row } from './lib.ts'

export async function benchFanOut ({ directory, bytes, linkBytesPerSecond, loaders, rounds, log }: { directory: string, bytes: number, linkBytesPerSecond: number, loaders: number, rounds: number, log: (line: string) => void }): Promise<Row[]> {
  const source = join(directory, 'model')
  await writeSyntheticModel(source, { bytes, seed: 4 })
  const times: number[] = []; const copies: number[] = []; const duplicates: number[] = []
  let modelBytes = bytes
  for (let round = 0; round < rounds; round++) {
    const swarmKeyHex = randomBytes(32).toString('hex')
    const settings = { listen: ['/ip4/127.0.0.1/tcp/0'], network: { inboundPerSecond: 1000 } }
    const start = async (name: string): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: join(directory, name), swarmKeyHex, settings, linkBytesPerSecond })
    const seeder = await start('seeder')
    const { cid, bytes: added } = await seeder.add(source, true)
    modelBytes = added
    const nodes = await Promise.all(Array.from({ length: loaders }, async (_, i) => await start(`loader-${i}`)))
    for (const node of nodes) await node.connect(seeder.multiaddrs[0] ?? '')
    const started = performance.now()
    const results = await Promise.all(nodes.map(async node => await node.load(cid)))
    times.push((performance.now() - started) / 1000)
    copies.push(results.reduce((sum, result) => sum + (result.peers[seeder.peerId] ?? 0), 0) / modelBytes)
    duplicates.push(100 * results.reduce((sum, result) => sum + result.duplicateBytes, 0) / (loaders * modelBytes))
    for (const node of [seeder, ...nodes]) await node.stop()
    for (const name of ['seeder', ...nodes.map((_, i) => `loader-${i}`)]) await rm(join(directory, name), { recursive: true })
    log(`fan-out round ${round + 1}: ${times.at(-1)?.toFixed(1)} s, seeder sent ${copies.at(-1)?.toFixed(2)} copies, duplicates ${duplicates.at(-1)?.toFixed(2)} %`)
  }
  const least = modelBytes / linkBytesPerSecond
  const ratio = median(times) / least
  const name = `${loaders} loaders, ${(modelBytes / MiB).toFixed(0)} MiB, links of ${linkBytesPerSecond / MiB} MiB/s`
  return [
    { what: name, figure: `${spread(times, 1)} s`, beside: `size / R ${least.toFixed(1)} s`, ratio: ratio.toFixed(2), mustReach: '<= 1.25', reached: ratio <= 1.25 },
    { what: 'copies the seeder sent', figure: spread(copies), beside: '', ratio: '', mustReach: '<= 1.5', reached: median(copies) <= 1.5 },
    { what: 'duplicate bytes', figure: `${spread(duplicates)} %`, beside: '', ratio: '', mustReach: '< 1 %', reached: median(duplicates) < 1 }
  ]
}
