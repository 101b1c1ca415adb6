import { join } from 'node:path'
import { OneShot } from '../processes.ts'
import type { Contender } from './types.ts'

/** `cp` on one machine: no network, no encryption, no check. */
export const copy: Contender = {
  name: 'cp',
  rival: false,
  encrypted: false,
  syncs: false,
  seedersMax: 1,
  bytesMax: Infinity,
  absent: () => undefined,
  async start (source) {
    return {
      pids: [],
      sources: [source.path],
      async loader (target) {
        const path = join(target, 'file')
        const program = new OneShot('cp', ['--reflink=never', source.path, path])
        return {
          pids: program.pids,
          async run () {
            await program.run()
            return { path }
          },
          async [Symbol.asyncDispose] () { await program[Symbol.asyncDispose]() }
        }
      },
      async [Symbol.asyncDispose] () { /* nothing was started */ }
    }
  }
}
