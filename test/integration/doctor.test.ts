import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { flagLayer, resolveConfig, type Config } from '../../src/cli/config.ts'
import { examine, type Finding } from '../../src/cli/doctor/index.ts'

const NOBODY = 65_534

describe('doctor', function () {
  this.timeout(30_000)
  let root = ''
  let socketPath = ''
  let server: Server | undefined

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-doctor-'))
    socketPath = join(root, 'api.sock')
  })
  afterEach(async () => {
    await new Promise<void>(resolve => { if (server === undefined) resolve(); else server.close(() => { resolve() }) })
    server = undefined
    await rm(root, { recursive: true })
  })

  const listen = async (): Promise<void> => {
    server = createServer(socket => { socket.destroy() })
    await new Promise<void>(resolve => { server?.listen(socketPath, resolve) })
  }
  const find = async (check: string, init: { dataDirectory?: string, config?: Config } = {}): Promise<Finding[]> => {
    const findings = await examine({ dataDirectory: root, socketPath, config: resolveConfig([]), ...init })
    return findings.filter(finding => finding.check === check)
  }

  it('warns where no daemon is', async () => {
    const [found] = await find('daemon')
    assert.deepEqual([found?.level, found?.message], ['warn', `no daemon listens on ${socketPath}: what follows is about the host alone`])
  })

  it('does not take a socket that this user may not use for no daemon', async () => {
    await listen()
    await chmod(root, 0o755)
    await chmod(socketPath, 0)
    const isRoot = process.getuid?.() === 0
    if (isRoot) process.seteuid?.(NOBODY)
    try {
      const [found] = await find('daemon')
      assert.deepEqual([found?.level, found?.message], ['fail', `no permission to use ${socketPath}; run as the user that started the daemon`])
    } finally {
      if (isRoot) process.seteuid?.(0)
    }
  })

  it('says that the data directory is a file', async () => {
    const dataDirectory = join(root, 'file')
    await writeFile(dataDirectory, '')
    assert.deepEqual((await find('versions', { dataDirectory })).at(-1), { check: 'versions', level: 'fail', message: `${dataDirectory} is no directory`, fix: 'give another --data directory' })
    assert.deepEqual(await find('permissions', { dataDirectory }), [])
  })

  it('looks at what a link leads to', async () => {
    const [target, dataDirectory] = [join(root, 'drive'), join(root, 'link')]
    await mkdir(target, { mode: 0o755 })
    await symlink(target, dataDirectory)
    assert.deepEqual((await find('permissions', { dataDirectory })).map(({ level, message }) => [level, message]), [['warn', `${dataDirectory} can be read by others (mode 0755)`]])
  })

  it('says that a link leads nowhere', async () => {
    const link = join(root, 'link')
    await symlink('gone', link)
    for (const dataDirectory of [link, join(link, 'below')]) {
      const [found] = (await find('versions', { dataDirectory })).slice(-1)
      assert.deepEqual([found?.level, found?.message], ['fail', `${link} is a symbolic link to gone, where nothing is`])
      assert.deepEqual(await find('permissions', { dataDirectory }), [])
    }
  })

  it('looks at the ports for clients as well', async () => {
    const other = createServer()
    await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
    try {
      const { port } = other.address() as { port: number }
      const ports = async (...set: string[]): Promise<Finding[]> => (await find('ports', { config: resolveConfig([flagLayer({ set: ['listen=/ip4/127.0.0.1/tcp/0', ...set] })]) })).slice(1)
      const [hf] = await ports(`hf.listen=127.0.0.1:${port}`)
      assert.deepEqual([hf?.level, hf?.message], ['fail', `127.0.0.1 port ${port} (the Hugging Face endpoint) is taken by another program`])
      assert.match(hf?.fix ?? '', /--set hf\.listen=HOST:PORT$/)
      const [api, none] = await ports(`api.tcp.port=${port}`)
      assert.deepEqual([api?.level, api?.message, none], ['fail', `127.0.0.1 port ${port} (the API over TCP) is taken by another program`, undefined])
      const [metrics] = await ports(`metrics.listen=127.0.0.1:${port}`)
      assert.deepEqual([metrics?.level, metrics?.message], ['fail', `127.0.0.1 port ${port} (the metrics) is taken by another program`])
      assert.match(metrics?.fix ?? '', /--set metrics\.listen=HOST:PORT$/)
      assert.deepEqual((await ports('hf.listen=127.0.0.1:0')).map(({ level }) => level), ['ok'])
      assert.deepEqual(await ports(), [])
    } finally {
      await new Promise(resolve => { other.close(resolve) })
    }
  })

  it('does not take a daemon that hangs up for no daemon', async () => {
    await listen()
    const [found] = await find('daemon')
    assert.equal(found?.level, 'fail')
    assert.match(found.message, /went away before it had answered/)
  })
})
