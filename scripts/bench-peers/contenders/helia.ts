import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { open, readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, asError } from '../../../src/base/index.ts'
import { LineProcess, OneShot } from '../processes.ts'
import type { Contender } from './types.ts'

const HELIA = new URL('../../bench/helia/', import.meta.url).pathname
/** As the adapter cuts files. */
const CHUNK_BYTES = MiB

/** Helia as `npm run bench` runs it: TCP, Noise, Yamux, Bitswap, blocks of 1 MiB in blockstore-fs. */
export const helia: Contender = {
  name: 'Helia',
  rival: false,
  encrypted: true,
  syncs: false,
  seedersMax: 1,
  bytesMax: 256 * MiB,
  absent () {
    if (existsSync(join(HELIA, 'node_modules'))) return undefined
    try {
      execFileSync('npm', ['ci', '--prefix', HELIA], { stdio: 'ignore' })
      return undefined
    } catch (error) {
      return `npm ci in scripts/bench/helia failed (${asError(error).message})`
    }
  },
  async start (source, directory) {
    const seeder = new LineProcess(process.execPath, [join(HELIA, 'peer.js'), 'seed', join(directory, 'helia-seed'), source.path])
    const { cid, multiaddr } = await seeder.json<{ cid: string, multiaddr: string }>()
    return {
      pids: [seeder.pid],
      sources: [join(directory, 'helia-seed')],
      async loader (target) {
        const path = join(target, 'helia')
        const program = new OneShot(process.execPath, [join(HELIA, 'peer.js'), 'load', path, cid, multiaddr])
        return {
          pids: program.pids,
          async run () {
            const { seconds, bytes } = JSON.parse((await program.run()).at(-1) ?? '{}') as { seconds: number, bytes: number }
            if (bytes !== source.bytes) throw new Error(`Helia loaded ${bytes} of ${source.bytes} bytes`)
            return { path, seconds }
          },
          async [Symbol.asyncDispose] () { await program[Symbol.asyncDispose]() }
        }
      },
      async check ({ path }) {
        const held = new Set<string>()
        for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
          if (entry.isFile()) held.add(sha256(await readFile(join(entry.parentPath, entry.name))))
        }
        await using file = await open(source.path)
        const chunk = Buffer.alloc(CHUNK_BYTES)
        for (let at = 0; at < source.bytes; at += CHUNK_BYTES) {
          const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, at)
          if (!held.has(sha256(chunk.subarray(0, bytesRead)))) throw new Error(`Helia's blockstore lacks the chunk at ${at}`)
        }
      },
      async [Symbol.asyncDispose] () { await seeder[Symbol.asyncDispose]() }
    }
  }
}

function sha256 (bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
