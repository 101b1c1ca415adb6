import { Argument, type Command } from 'commander'
import { DEFAULT_REVISION } from '../../model/repo-name.ts'
import { action } from '../context.ts'

const HELP = `
Load it in the shell's start-up file:
  bash   eval "$(shoal completion bash)"
  zsh    source <(shoal completion zsh)          after compinit
  fish   shoal completion fish | source

Models are completed with the CIDs of those held, and the names linked, at the daemon that --data or --api names.`

/** Longer than this nobody waits at a prompt. */
const MODELS_TIMEOUT_MS = 1_000

export function addCompletion (program: Command): void {
  program.command('completion')
    .description('print a script that completes commands, options and models in a shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(['bash', 'zsh', 'fish']))
    .addHelpText('after', HELP)
    .action(action(async (context, shell: string) => {
      const [{ wordsOf }, { bashScript, zshScript }, { fishScript }, { configKeys }] = await Promise.all([
        import('../completion/words.ts'), import('../completion/posix.ts'), import('../completion/fish.ts'), import('../config.ts')
      ])
      const words = wordsOf(program, configKeys)
      const script = shell === 'bash' ? bashScript(words) : shell === 'zsh' ? zshScript(words) : fishScript(words)
      context.print({ script }, script.trimEnd())
    }))
  // Asked by the scripts: CIDs and names, or nothing. At a prompt no error is wanted. Shells expand what comes: no character that means something to them.
  program.command('completion-models', { hidden: true })
    .action(action(async context => {
      const signal = AbortSignal.timeout(MODELS_TIMEOUT_MS)
      const [models, links] = await Promise.all([context.client.models({ signal }).catch(() => []), context.client.links({ signal }).catch(() => [])])
      const cids = models.map(model => model.cid).filter(cid => /^[a-z0-9]{1,256}$/.test(cid))
      const names = links.filter(({ repo, revision }) => revision === DEFAULT_REVISION && /^\w[\w./-]{0,255}$/.test(repo)).map(({ repo }) => repo)
      const words = [...cids, ...names]
      context.print({ cids, names }, words.length === 0 ? undefined : words.join('\n'))
    }))
}
