import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { makeCertificate } from '../certificate.ts'
import { which } from '../processes.ts'
import type { Contender } from './types.ts'

const PROGRAM = new URL('../floor-process.ts', import.meta.url).pathname

/** Raw TLS, BLAKE3 and direct writes with nothing else: what one thread a side can do at most. */
export const floor: Contender = {
  name: 'floor',
  rival: false,
  encrypted: true,
  syncs: true,
  seedersMax: 1,
  bytesMax: Infinity,
  absent: () => which('openssl') === undefined ? 'openssl is not on the PATH (apt-get install openssl)' : undefined,
  async start (source, directory) {
    const { key, certificate } = makeCertificate(directory)
    const seeder = fork(PROGRAM, ['seed', key, certificate, source.path])
    const offer = await answer<Offer>(seeder)
    return {
      pids: [seeder.pid ?? 0],
      sources: [source.path],
      async loader (target) {
        const child = fork(PROGRAM, ['load', certificate])
        await answer(child)
        const path = join(target, 'file')
        return {
          pids: [child.pid ?? 0],
          async warmUp (bytes) { await load(child, { ...offer, path, size: Math.min(bytes, offer.size) }) },
          async run () {
            await load(child, { ...offer, path })
            return { path }
          },
          async [Symbol.asyncDispose] () { await end(child) }
        }
      },
      async [Symbol.asyncDispose] () { await end(seeder) }
    }
  }
}

/** What the seeding process says; `size` may be asked for in part. */
interface Offer { port: number, size: number, digests: string[] }

async function load (child: ChildProcess, task: Offer & { path: string }): Promise<void> {
  child.send(task)
  const result = await answer<{ error?: string }>(child)
  if (result.error !== undefined) throw new Error(`the floor failed: ${result.error}`)
}

async function answer<T> (child: ChildProcess): Promise<T> {
  return await new Promise((resolve, reject) => {
    const ended = (code: number | null): void => { reject(new Error(`the floor ended with ${code}`)) }
    child.once('exit', ended)
    child.once('message', message => {
      child.off('exit', ended)
      resolve(message as T)
    })
  })
}

async function end (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise(resolve => child.once('exit', resolve))
  child.disconnect()
  await exited
}
