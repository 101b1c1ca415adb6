import { fork, type ChildProcess } from 'node:child_process'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeCertificate } from '../certificate.ts'
import { which } from '../processes.ts'
import type { Contender } from './types.ts'

const PROGRAM = new URL('../floor-process.ts', import.meta.url).pathname

/** Raw TLS, BLAKE3 and direct writes with nothing else: what one thread a process can do at most. */
export const floor: Contender = {
  name: 'floor',
  rival: false,
  encrypted: true,
  syncs: true,
  seedersMax: 3,
  bytesMax: Infinity,
  absent: () => which('openssl') === undefined ? 'openssl is not on the PATH (apt-get install openssl)' : undefined,
  async start (source, directory, count) {
    const { key, certificate } = makeCertificate(directory)
    await using started = new AsyncDisposableStack()
    const sources: string[] = []
    const pids: number[] = []
    const ports: number[] = []
    let offer: Offer = { port: 0, size: 0, digests: [] }
    for (let i = 0; i < count; i++) {
      const path = i === 0 ? source.path : join(directory, `floor-${i}`)
      if (i > 0) await copyFile(source.path, path)
      const seeder = fork(PROGRAM, ['seed', key, certificate, path])
      started.defer(async () => { await end(seeder) })
      offer = await answer<Offer>(seeder)
      sources.push(path)
      pids.push(seeder.pid ?? 0)
      ports.push(offer.port)
    }
    const { size, digests } = offer
    const stack = started.move()
    return {
      pids,
      sources,
      async loader (target, wanted) {
        const child = fork(PROGRAM, ['load', certificate])
        await answer(child)
        const path = join(target, 'file')
        const task = { ports: ports.slice(0, wanted), size, digests, path }
        return {
          pids: [child.pid ?? 0],
          async warmUp (bytes) { await load(child, { ...task, size: Math.min(bytes, size) }) },
          async run () {
            await load(child, task)
            return { path }
          },
          async [Symbol.asyncDispose] () { await end(child) }
        }
      },
      async [Symbol.asyncDispose] () { await stack.disposeAsync() }
    }
  }
}

/** What the seeding process says. */
interface Offer { port: number, size: number, digests: string[] }

/** `size` may be asked for in part. */
async function load (child: ChildProcess, task: Omit<Offer, 'port'> & { ports: number[], path: string }): Promise<void> {
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
