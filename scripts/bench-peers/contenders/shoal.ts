import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { NodeProcess } from '../../lib/spawn-node.ts'
import { writeSyntheticModel } from '../../lib/synthetic-model.ts'
import { WARM_UP_BYTES } from '../measure.ts'
import type { Contender } from './types.ts'

const LISTEN = { listen: ['/ip4/127.0.0.1/tcp/0'] }

/** `lane`: as a node comes. `stream`: the same with lanes switched off on both sides. */
export function shoal (kind: 'lane' | 'stream'): Contender {
  const settings = { ...LISTEN, lane: { enabled: kind === 'lane' } }
  return {
    name: `Shoal (${kind})`,
    rival: false,
    encrypted: true,
    syncs: true,
    seedersMax: 3,
    bytesMax: Infinity,
    absent: () => undefined,
    async start (source, directory, count) {
      const swarmKeyHex = randomBytes(32).toString('hex')
      await using started = new AsyncDisposableStack()
      const seeders: NodeProcess[] = []
      const sources: string[] = []
      let cid = ''
      let warmCid = ''
      const warm = join(directory, 'warm-up')
      await writeSyntheticModel(warm, { bytes: WARM_UP_BYTES, seed: 7 })
      for (let i = 0; i < count; i++) {
        const dataDirectory = join(directory, `seeder-${i}`)
        const seeder = started.use(await NodeProcess.start({ dataDirectory, swarmKeyHex, settings }))
        // A copy, as by default; a file in place is also guarded and hashed at each read.
        cid = (await seeder.add(source.path)).cid
        warmCid = (await seeder.add(warm)).cid
        seeders.push(seeder)
        sources.push(join(dataDirectory, 'files'))
      }
      const stack = started.move()
      return {
        pids: seeders.map(seeder => seeder.child.pid ?? 0),
        sources,
        async loader (target, wanted) {
          const dataDirectory = join(target, 'node')
          const node = await NodeProcess.start({ dataDirectory, swarmKeyHex, settings })
          for (const seeder of seeders.slice(0, wanted)) await node.connect(seeder.multiaddrs[0] ?? '')
          return {
            pids: [node.child.pid ?? 0],
            async warmUp () {
              await node.load(warmCid)
              await node.remove(warmCid)
            },
            async run () {
              const result = await node.load(cid)
              if (result.fetchedBytes !== result.bytes) throw new Error(`fetched ${result.fetchedBytes} of ${result.bytes} bytes`)
              const transports = new Set((await node.peers()).filter(peer => peer.receivedBytes > 0).map(peer => peer.transport ?? 'unknown'))
              return { path: join(dataDirectory, 'models', cid), note: [...transports].join(', ') }
            },
            async [Symbol.asyncDispose] () {
              await node.stop()
              await rm(dataDirectory, { recursive: true, force: true })
            }
          }
        },
        async [Symbol.asyncDispose] () { await stack.disposeAsync() }
      }
    }
  }
}
