import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { LineProcess, OneShot, which } from '../processes.ts'
import type { Contender } from './types.ts'

const READY = 'Daemon is ready'
const MISSING = 'ipfs is not on the PATH (binaries: dist.ipfs.tech/#kubo)'

/** Kubo with 1 MiB chunks, alone on loopback: no DHT, no relay, no port mapping, which could only slow it down. */
export const kubo: Contender = {
  name: 'Kubo',
  rival: false,
  encrypted: true,
  syncs: false,
  seedersMax: 3,
  bytesMax: Infinity,
  absent: () => which('ipfs') === undefined ? MISSING : undefined,
  async start (source, directory, count) {
    const ipfs = which('ipfs') ?? ''
    await using started = new AsyncDisposableStack()
    const daemon = async (repo: string): Promise<{ env: NodeJS.ProcessEnv, process: LineProcess, address: string }> => {
      const env = { ...process.env, IPFS_PATH: repo }
      const call = (...args: string[]): string => execFileSync(ipfs, args, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      call('init', '--empty-repo', '--profile=test')
      call('config', 'Routing.Type', 'none')
      const child = new LineProcess(ipfs, ['daemon'], { env, quiet: true })
      await child.line(line => line.includes(READY))
      const { Addresses } = JSON.parse(call('id')) as { Addresses: string[] }
      const address = Addresses.find(one => one.startsWith('/ip4/127.0.0.1/tcp/'))
      if (address === undefined) throw new Error('the ipfs daemon has no TCP address')
      return { env, process: child, address }
    }
    const pids: number[] = []
    const sources: string[] = []
    const addresses: string[] = []
    let cid = ''
    for (let i = 0; i < count; i++) {
      const repo = join(directory, `kubo-${i}`)
      const seeder = await daemon(repo)
      started.use(seeder.process)
      cid = execFileSync(ipfs, ['add', '--quieter', '--raw-leaves', '--chunker=size-1048576', source.path], { env: seeder.env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
      pids.push(seeder.process.pid)
      sources.push(join(repo, 'blocks'))
      addresses.push(seeder.address)
    }
    const stack = started.move()
    return {
      pids,
      sources,
      async loader (target, wanted) {
        const { env, process: child } = await daemon(join(target, 'kubo'))
        for (const address of addresses.slice(0, wanted)) execFileSync(ipfs, ['swarm', 'connect', address], { env, stdio: 'ignore' })
        const path = join(target, 'file')
        const program = new OneShot(ipfs, ['get', '--progress=false', '--output', path, cid], { env, quiet: true })
        return {
          pids: [child.pid, ...program.pids],
          async run () {
            await program.run()
            return { path }
          },
          async [Symbol.asyncDispose] () {
            await program[Symbol.asyncDispose]()
            await child[Symbol.asyncDispose]()
          }
        }
      },
      async [Symbol.asyncDispose] () { await stack.disposeAsync() }
    }
  }
}
