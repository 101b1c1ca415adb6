import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { asError } from '../../../src/base/index.ts'
import { LineProcess } from '../processes.ts'
import type { Contender } from './types.ts'

const IROH = new URL('../iroh/', import.meta.url).pathname

/** iroh-blobs as its Node package brings it; it is installed beside the bench when it is not there. */
export const iroh: Contender = {
  name: 'iroh-blobs 0.35',
  rival: true,
  encrypted: true,
  syncs: false,
  // It takes a list of peers and asks the next when one fails: one at a time.
  seedersMax: 1,
  bytesMax: Infinity,
  absent () {
    if (existsSync(join(IROH, 'node_modules'))) return undefined
    try {
      // Not `npm ci`: it wants a lock that names the binaries of all platforms, and not all of them are to be had everywhere.
      execFileSync('npm', ['install', '--no-save', '--package-lock=false', '--prefix', IROH], { stdio: 'ignore' })
      return undefined
    } catch (error) {
      return `npm install in scripts/bench-peers/iroh failed (${asError(error).message})`
    }
  },
  async start (source, directory) {
    const seeder = new LineProcess(process.execPath, [join(IROH, 'peer.js'), 'seed', join(directory, 'iroh-seed'), source.path])
    const offer = await seeder.json()
    return {
      pids: [seeder.pid],
      sources: [source.path],
      async loader (target) {
        const store = join(target, 'iroh')
        const child = new LineProcess(process.execPath, [join(IROH, 'peer.js'), 'load', store])
        await child.json()
        return {
          pids: [child.pid],
          async run () {
            child.say(JSON.stringify(offer))
            await child.json()
            const data = join(store, 'blobs', 'data')
            const names = (await readdir(data)).filter(name => name.endsWith('.data'))
            if (names.length !== 1) throw new Error(`iroh's store holds ${names.join(', ')}`)
            return { path: join(data, names[0] ?? '') }
          },
          async [Symbol.asyncDispose] () { await child[Symbol.asyncDispose]() }
        }
      },
      async [Symbol.asyncDispose] () { await seeder[Symbol.asyncDispose]() }
    }
  }
}
