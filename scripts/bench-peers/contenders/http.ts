import { mkdir, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { makeCertificate } from '../certificate.ts'
import { LineProcess, OneShot, which } from '../processes.ts'
import type { Contender, Loader } from './types.ts'

/** curl: one connection. */
export function curl (): Contender {
  return overNginx({ name: 'curl', seedersMax: 1, syncs: false, program: 'curl' }, ({ urls, certificate, path }) =>
    new OneShot('curl', ['--silent', '--show-error', '--fail', '--http1.1', '--cacert', certificate, '--output', path, urls[0] ?? '']))
}

/** aria2 with so many connections to each server. It calls fsync by itself at the end (1.36, seen with strace). */
export function aria2 (connections: number): Contender {
  return overNginx({ name: `aria2 x${connections}`, seedersMax: 3, syncs: true, program: 'aria2c' }, ({ urls, certificate, path }) => new OneShot('aria2c', [
    '--no-conf', '--quiet', `--ca-certificate=${certificate}`, `--max-connection-per-server=${connections}`, `--split=${connections * urls.length}`,
    '--min-split-size=4M', '--file-allocation=falloc', '--disk-cache=64M', '--auto-save-interval=0', '--summary-interval=0', `--dir=${dirname(path)}`, `--out=${basename(path)}`, ...urls
  ]))
}

function overNginx ({ name, seedersMax, syncs, program }: { name: string, seedersMax: number, syncs: boolean, program: string }, make: (task: { urls: string[], certificate: string, path: string }) => OneShot): Contender {
  return {
    name,
    rival: true,
    encrypted: true,
    syncs,
    seedersMax,
    bytesMax: Infinity,
    absent () {
      const packages = { curl: 'curl', aria2c: 'aria2', nginx: 'nginx', openssl: 'openssl' }
      const missing = ([program, 'nginx', 'openssl'] as Array<keyof typeof packages>).filter(each => which(each) === undefined)
      return missing.length === 0 ? undefined : `${missing.join(', ')} not on the PATH (apt-get install ${missing.map(each => packages[each]).join(' ')})`
    },
    async start (source, directory, count) {
      const { key, certificate } = makeCertificate(directory)
      await using started = new AsyncDisposableStack()
      const pids: number[] = []
      const urls: string[] = []
      for (let i = 0; i < count; i++) {
        const prefix = join(directory, `nginx-${i}`)
        await mkdir(prefix, { recursive: true })
        const port = await freePort()
        await writeFile(join(prefix, 'nginx.conf'), nginxConfiguration({ prefix, port, key, certificate, root: dirname(source.path) }))
        const server = started.use(new LineProcess(which('nginx') ?? 'nginx', ['-p', prefix, '-c', join(prefix, 'nginx.conf'), '-e', join(prefix, 'error.log')]))
        await listening(port)
        pids.push(server.pid)
        urls.push(`https://localhost:${port}/${basename(source.path)}`)
      }
      const stack = started.move()
      return {
        pids,
        sources: [source.path],
        async loader (target, wanted): Promise<Loader> {
          const path = join(target, 'file')
          const program = make({ urls: urls.slice(0, wanted), certificate, path })
          return {
            pids: program.pids,
            async run () {
              await program.run()
              return { path }
            },
            async [Symbol.asyncDispose] () { await program[Symbol.asyncDispose]() }
          }
        },
        async [Symbol.asyncDispose] () { await stack.disposeAsync() }
      }
    }
  }
}

function nginxConfiguration ({ prefix, port, key, certificate, root }: { prefix: string, port: number, key: string, certificate: string, root: string }): string {
  return `
daemon off;
worker_processes auto;
pid ${prefix}/pid;
user root;
events { worker_connections 256; }
http {
  access_log off;
  sendfile on;
  sendfile_max_chunk 4m;
  tcp_nopush on;
  tcp_nodelay on;
  output_buffers 4 256k;
  client_body_temp_path ${prefix}/body;
  proxy_temp_path ${prefix}/proxy;
  fastcgi_temp_path ${prefix}/fastcgi;
  uwsgi_temp_path ${prefix}/uwsgi;
  scgi_temp_path ${prefix}/scgi;
  server {
    listen 127.0.0.1:${port} ssl reuseport;
    ssl_certificate ${certificate};
    ssl_certificate_key ${key};
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_buffer_size 64k;
    root ${root};
  }
}
`
}

async function freePort (): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise(resolve => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

async function listening (port: number): Promise<void> {
  for (let i = 0; i < 100; i++) {
    const open = await new Promise<boolean>(resolve => {
      const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
      socket.once('error', () => { resolve(false) })
    })
    if (open) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`nothing listens on port ${port}`)
}
