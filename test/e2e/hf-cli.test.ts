import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { lstat, mkdir, mkdtemp, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import { commitOf, gitHash } from '../../src/hf/identity.ts'
import type { ModelLink } from '../../src/node/types.ts'
import { CliProcess, shoal, type Finished } from './cli-process.ts'

interface Exported { cid: string, repo: string, revision: string, commit: string, path: string, files: number, kept: number, linked: number, reflinked: number }

describe('Hugging Face clients and the command line', function () {
  this.timeout(60_000)
  const contents = { 'config.json': Buffer.from('{}'), 'model.safetensors': randomBytes(2 * MiB), 'sub/deep/tokens.txt': Buffer.from('tokens'), 'sub/same.txt': Buffer.from('tokens') }
  let root = ''
  let data = ''
  let cid = ''
  let endpoint = ''
  let daemon: CliProcess | undefined
  const run = async (...args: string[]): Promise<Finished> => await shoal(['--data', data, ...args])
  const good = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout.trim()
  }

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-hf-'))
    data = join(root, 'data')
    for (const [path, content] of Object.entries(contents)) {
      await mkdir(dirname(join(root, 'model', path)), { recursive: true })
      await writeFile(join(root, 'model', path), content)
    }
    daemon = new CliProcess(['daemon', '--data', data, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', '--set', 'hf.listen=127.0.0.1:0', '--set', 'replication.target=0', '--set', 'replication.min=0'])
    await daemon.until(() => daemon?.stdout.includes('\n') === true)
    endpoint = (JSON.parse(daemon.stdout) as { hf: string }).hf
    assert.match(endpoint, /^http:\/\/127\.0\.0\.1:\d+$/)
    cid = await good('add', join(root, 'model'))
  })
  after(async () => {
    daemon?.signal('SIGTERM')
    assert.equal((await daemon?.finished)?.code, 0)
    await rm(root, { recursive: true, force: true })
  })

  it('links names, lists them, and takes them away', async () => {
    assert.equal(await good('links'), 'no links yet; make one with shoal link ORG/NAME CID')
    assert.equal(await good('link', 'acme/tiny', cid), `linked acme/tiny to ${cid}`)
    const { linkedAt, ...linked } = JSON.parse(await good('link', 'acme/tiny@v1', cid, '--json')) as ModelLink
    assert.deepEqual(linked, { repo: 'acme/tiny', revision: 'v1', cid })
    assert.ok(Math.abs(Date.now() - linkedAt) < 60_000)
    assert.equal(await (await fetch(`${endpoint}/acme/tiny/resolve/v1/config.json`)).text(), '{}')
    assert.match(await good('links'), new RegExp(`^NAME +REVISION +CID +LINKED\\nacme/tiny +main +${cid} .*\\nacme/tiny +v1 +${cid} `))
    assert.equal((JSON.parse(await good('links', '--json')) as ModelLink[]).length, 2)
    assert.equal(await good('unlink', 'acme/tiny@v1'), `unlinked acme/tiny@v1, which stood for ${cid}`)
    assert.equal((await fetch(`${endpoint}/acme/tiny/resolve/v1/config.json`)).headers.get('x-error-code'), 'RevisionNotFound')
    for (const [args, code, name] of [
      [['link', 'no name', cid], 2, 'InvalidRepoNameError'], [['link', 'cid/x', cid], 2, 'InvalidRepoNameError'], [['link', 'acme/tiny', 'x'], 2, 'InvalidCidError'], [['unlink', 'acme/tiny@v1'], 3, 'LinkNotFoundError'],
      [['export', cid], 2, 'UsageError'], [['add'], 2, 'UsageError'], [['add', root, '--from-hf-cache', 'a/b'], 2, 'UsageError'], [['add', root, '--revision', 'x'], 2, 'UsageError'],
      [['add', '--from-hf-cache', 'a/b@v1', '--revision', 'v1', '--cache-dir', root], 2, 'UsageError'],
      [['add', '--from-hf-cache', 'a/b', '--cache-dir', root], 3, 'RepoNotCachedError']
    ] as const) {
      const failed = await run(...args, '--json')
      assert.deepEqual([failed.code, (JSON.parse(failed.stderr) as { error: { name: string } }).error.name], [code, name], args.join(' '))
    }
  })

  it('exports a model to the cache of clients, and again', async () => {
    const cache = join(root, 'cache')
    const exported = JSON.parse(await good('export', cid, '--hf-cache', '--cache-dir', cache, '--json')) as Exported
    const folder = join(cache, 'models--acme--tiny')
    assert.deepEqual([exported.repo, exported.revision, exported.commit, exported.path, exported.files], ['acme/tiny', 'main', commitOf(cid), join(folder, 'snapshots', commitOf(cid)), 4])
    assert.equal(await readFile(join(folder, 'refs', 'main'), 'utf8'), commitOf(cid))
    const tree = JSON.parse(await readFile(join(folder, 'trees', `${commitOf(cid)}.json`), 'utf8')) as { format_version: number, files: Record<string, { size: number, blob_id: string, lfs_sha256?: string }> }
    assert.deepEqual([tree.format_version, Object.keys(tree.files)], [1, Object.keys(contents)])
    for (const [path, content] of Object.entries(contents)) {
      const etag = content.length > MiB ? createHash('sha256').update(content).digest('hex') : gitHash('blob', content)
      assert.equal(await readlink(join(exported.path, path)), `${'../'.repeat(path.split('/').length + 1)}blobs/${etag}`)
      assert.ok((await readFile(join(exported.path, path))).equals(content))
      assert.equal(tree.files[path]?.lfs_sha256 ?? tree.files[path]?.blob_id, etag)
      const blob = await stat(join(folder, 'blobs', etag))
      if (exported.linked > 0) assert.equal(blob.nlink > 1, true) // else the file system made clones
    }
    const again = JSON.parse(await good('export', cid, '--hf-cache', '--cache-dir', cache, '--json')) as Exported
    assert.deepEqual([again.kept, again.linked, again.reflinked, again.path], [3, 0, 0, exported.path])
    // A name of its own, by the variable that clients read.
    const other = await shoal(['--data', data, 'export', cid, '--hf-cache', '--name', 'other/name@release/1'], { env: { HF_HOME: join(root, 'home') } })
    assert.equal(other.stdout.trim(), join(root, 'home', 'hub', 'models--other--name', 'snapshots', commitOf(cid)))
    assert.equal(await readFile(join(root, 'home', 'hub', 'models--other--name', 'refs', 'release', '1'), 'utf8'), commitOf(cid))
  })

  it('never hands out a link to a file in place, and never writes over what is there', async () => {
    const model = join(root, 'mine')
    await mkdir(model)
    await writeFile(join(model, 'w.bin'), randomBytes(MiB))
    const mine = await good('add', '--in-place', model)
    const cache = join(root, 'mine-cache')
    const { path } = JSON.parse(await good('export', mine, '--hf-cache', '--cache-dir', cache, '--json')) as Exported
    assert.notEqual((await stat(join(path, 'w.bin'))).ino, (await stat(join(model, 'w.bin'))).ino)
    assert.equal(path.includes('models--cid--'), true) // it has no other name
    await rm(join(path, 'w.bin'))
    await writeFile(join(path, 'w.bin'), 'changed by hand')
    const refused = await run('export', mine, '--hf-cache', '--cache-dir', cache, '--json')
    assert.deepEqual([refused.code, (JSON.parse(refused.stderr) as { error: { name: string } }).error.name], [1, 'OutputExistsError'])
    assert.equal(await readFile(join(path, 'w.bin'), 'utf8'), 'changed by hand')
    // A directory that leads elsewhere is not followed.
    const trap = join(root, 'trap')
    await mkdir(join(trap, `models--cid--${mine}`), { recursive: true })
    await symlink(root, join(trap, `models--cid--${mine}`, 'snapshots'))
    assert.equal((await run('export', mine, '--hf-cache', '--cache-dir', trap)).code, 1)
    await assert.rejects(lstat(join(root, commitOf(mine))), { code: 'ENOENT' })
  })

  it('publishes what a client has downloaded, in place, under its name', async () => {
    const cache = join(root, 'downloaded')
    const exported = JSON.parse(await good('export', cid, '--hf-cache', '--cache-dir', cache, '--name', 'acme/down@v2', '--json')) as Exported
    const other = join(root, 'other')
    const second = new CliProcess(['daemon', '--data', other, '--json', '--listen', '/ip4/127.0.0.1/tcp/0'])
    try {
      await second.until(() => second.stdout.includes('\n'))
      const at = async (...args: string[]): Promise<Finished> => await shoal(['--data', other, ...args])
      const added = await at('add', '--from-hf-cache', 'acme/down', '--revision', 'v2', '--cache-dir', cache)
      assert.deepEqual([added.code, added.stdout.trim()], [0, cid], added.stderr)
      assert.deepEqual((JSON.parse((await at('links', '--json')).stdout) as ModelLink[]).map(link => [link.repo, link.revision, link.cid]), [['acme/down', 'v2', cid]])
      const shown = JSON.parse((await at('show', cid, '--json')).stdout) as { fileList: Array<{ inPlace: boolean }> }
      assert.ok(shown.fileList.every(({ inPlace }) => inPlace))
      // What is not whole is no model, and what leads out of the cache is none of it.
      await rm(join(exported.path, 'config.json'))
      assert.match((await at('add', '--from-hf-cache', 'acme/down@v2', '--cache-dir', cache)).stderr, /downloaded in part only: config\.json is missing/)
      await symlink('/etc/hostname', join(exported.path, 'config.json'))
      assert.match((await at('add', '--from-hf-cache', 'acme/down', '--revision', exported.commit, '--cache-dir', cache)).stderr, /points to \/etc\/hostname, which is not below/)
    } finally {
      second.signal('SIGTERM')
      await second.finished
    }
  })

  it('tells what is wrong with where it should listen', async () => {
    for (const [setting, message] of [['hf.listen=8765', /hf\.listen must be a host and port such as 127\.0\.0\.1:8765/], ['hf.listen=0.0.0.0:0', /hf\.listen names 0\.0\.0\.0, which others can reach/]] as const) {
      const { code, stderr } = await shoal(['daemon', '--data', join(root, 'wrong'), '--listen', '/ip4/127.0.0.1/tcp/0', '--set', setting])
      assert.equal(code, 2)
      assert.match(stderr, message)
    }
  })
})
