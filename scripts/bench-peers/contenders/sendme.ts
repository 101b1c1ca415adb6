import { mkdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { LineProcess, OneShot, which } from '../processes.ts'
import type { Contender } from './types.ts'

/** A current iroh-blobs, by its command-line program sendme; process start and export to the file are in its time. */
export const sendme: Contender = {
  name: 'iroh-blobs (sendme)',
  rival: false,
  encrypted: true,
  syncs: false,
  seedersMax: 1,
  bytesMax: Infinity,
  absent: () => which('sendme') === undefined ? 'sendme is not on the PATH (cargo install sendme)' : undefined,
  async start (source, directory) {
    // It keeps its stores in the working directory.
    const inDirectory = ['-c', 'cd "$0" && exec "$@"']
    const command = which('sendme') ?? ''
    const seeder = new LineProcess('/bin/sh', [...inDirectory, directory, command, 'send', '--relay', 'disabled', '--ticket-type', 'addresses', source.path], { quiet: true })
    const line = await seeder.line(each => each.includes('sendme receive '))
    const ticket = line.slice(line.indexOf('sendme receive ') + 'sendme receive '.length).trim()
    return {
      pids: [seeder.pid],
      sources: [source.path],
      async loader (target) {
        const work = join(target, 'sendme')
        await mkdir(work)
        const program = new OneShot('/bin/sh', [...inDirectory, work, command, 'receive', '--relay', 'disabled', ticket], { quiet: true })
        return {
          pids: program.pids,
          async run () {
            await program.run()
            return { path: join(work, basename(source.path)) }
          },
          async [Symbol.asyncDispose] () { await program[Symbol.asyncDispose]() }
        }
      },
      async [Symbol.asyncDispose] () { await seeder[Symbol.asyncDispose]() }
    }
  }
}
